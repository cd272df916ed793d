"""What gradio keeps of every session, at less cost."""

from __future__ import annotations

from typing import Any

from gradio.blocks import Block, Blocks, BlocksConfig


class KnownConfig(BlocksConfig):
    """The configuration of a page, whose components are asked for theirs only once.

    gradio makes a session for every call over its API, and asks all components anew for each: that took
    16 of the 24 ms of a call that does nothing else, and twice the memory of a session.
    """

    known: dict[int, dict[str, Any]]

    @classmethod
    def replace(cls, blocks: Blocks) -> None:
        """Let all further sessions of an app, which is built, copy what is known."""
        blocks.default_config = cls._of(blocks.default_config, {})

    @classmethod
    def _of(cls, config: BlocksConfig, known: dict[int, dict[str, Any]]) -> KnownConfig:
        new = cls(config.root_block)
        vars(new).update(vars(config), known=known)
        return new

    def __copy__(self) -> KnownConfig:
        return self._of(super().__copy__(), self.known)  # type: ignore[no-untyped-call]

    def config_for_block(  # type: ignore[override]  # a static method of gradio's, called by instances
        self, _id: int, rendered_ids: list[int], block: Block, renderable: Any = None
    ) -> dict[str, Any]:
        """What the browser is told of a component; a session may change its "props"."""
        if rendered_ids or renderable or self.root_block.blocks.get(_id) is not block:
            return super().config_for_block(_id, rendered_ids, block, renderable)
        if _id not in self.known:
            self.known[_id] = super().config_for_block(_id, [], block)
        found = self.known[_id]
        return {**found, "props": dict(found["props"])}
