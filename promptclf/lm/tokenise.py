"""Prompts and answers become token ids, and no text can write a control token.

Everything that comes from a template or a user is encoded as plain text. Control tokens are written
only by the model's own chat template (with ``sanitize_control_tokens``, where every added token
counts as control) and by the tokenizer's own beginning-of-sequence rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from promptclf.errors import ModelError, TaskError
from promptclf.prompt import Prompt

ANSWER = "An answer."


class PromptEncoder:
    """Encodes prompts for one tokenizer.

    Parameters
    ----------
    tokenizer
        A ``transformers`` tokenizer; its list of control tokens is extended in place.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = [t for t in tokenizer.added_tokens_decoder.items() if not t[1].content.isspace()]
        self.tokenizer = tokenizer
        self._control_ids = frozenset(index for index, _ in added)
        words = sorted({token.content for _, token in added}, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, words)) or r"(?!)")
        # The default list holds special tokens only, so that "<think>", say, would slip through.
        tokenizer.chat_control_tokens = words
        bare = tokenizer("", add_special_tokens=True)["input_ids"]
        self._start = [index for index in bare if index == tokenizer.bos_token_id][:1]

    def plain(self, text: str) -> list[int]:
        """Encode `text` so that it holds no control token, whatever it says."""
        ids = self._encode(text)
        if self._control_ids.isdisjoint(ids):
            return ids
        # Added tokens that are not "special" are matched all the same: break each one in two.
        pieces, start = [], 0
        for match in self._control.finditer(text):
            pieces += [text[start : match.start() + 1]]
            start = match.start() + 1
        ids = [index for piece in (*pieces, text[start:]) for index in self._encode(piece)]
        # A vocabulary may hold the control word itself; then it is spelt in characters.
        if not self._control_ids.isdisjoint(ids):
            ids = [index for char in text for index in self._encode(char) if index not in self._control_ids]
        return ids

    def prompt(self, prompt: Prompt) -> list[int]:
        """Encode a whole prompt, cue included."""
        if not prompt.chat:
            return self._start + self.plain(prompt.text)
        if not self.tokenizer.chat_template:
            raise ModelError(
                f"{self.tokenizer.name_or_path or 'this model'} has no chat template; "
                "use a completion template, such as 'completion'"
            )
        messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
        return self._chat(messages) + (self.plain(prompt.cue) if prompt.cue else [])

    def answers(self, prompt: Prompt, answers: Sequence[str]) -> list[list[int]]:
        """Encode answers as they continue `prompt`; one that begins another gets an end marker.

        Raises
        ------
        TaskError
            If two answers are the same tokens, or one has none.
        """
        encoded = [self._continuation(prompt, answer) for answer in answers]
        for n, (answer, ids) in enumerate(zip(answers, encoded, strict=True)):
            if not ids:
                raise TaskError(f"the label words {answer!r} have no tokens in this model; choose others")
            if (first := encoded.index(ids)) != n:
                same = answers[first]
                raise TaskError(f"the label words {answer!r} and {same!r} are the same tokens; choose others")
        begins_another = [
            any(other[: len(ids)] == ids for other in encoded if other is not ids) for ids in encoded
        ]
        end = self.end_marker(prompt) if any(begins_another) else []
        return [ids + end if b else ids for ids, b in zip(encoded, begins_another, strict=True)]

    def end_marker(self, prompt: Prompt) -> list[int]:
        """What ends an answer: the end of the turn in a chat, the end of the line otherwise."""
        if prompt.chat and (end := self._turn_end()) is not None:
            return [end]
        return self._encode("\n")[-1:]

    def _turn_end(self) -> int | None:
        """The control token that the chat template writes behind an answer, or else the EOS token."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
        try:
            written = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception:  # a template may refuse anything
            written = ""
        _, answered, rest = written.rpartition(ANSWER)
        end = self._control.match(rest.lstrip()) if answered else None
        token: int | None = (
            self.tokenizer.convert_tokens_to_ids(end[0]) if end else self.tokenizer.eos_token_id
        )
        return token

    def _continuation(self, prompt: Prompt, answer: str) -> list[int]:
        # Words may be split differently after a space or a letter, so the answer is encoded behind
        # the cue, the last thing before it, and the cue's tokens are taken off again.
        cue = prompt.cue or ("\n" if prompt.chat else prompt.text[-20:])
        before, whole = self.plain(cue), self.plain(cue + answer)
        return whole[len(before) :] if whole[: len(before)] == before else self.plain(answer)

    def _encode(self, text: str) -> list[int]:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return list(encoded["input_ids"])

    def _chat(self, messages: list[dict[str, str]]) -> list[int]:
        try:
            return self._apply(messages)
        except Exception as error:
            # Some templates know no system role: the instruction then opens the first user turn.
            if messages[0]["role"] != "system" or "system" not in str(error).lower():
                raise ModelError(f"the model's chat template refused the prompt: {error}") from error
        system, first, *rest = messages
        return self._apply(
            [{"role": "user", "content": system["content"] + "\n\n" + first["content"]}, *rest]
        )

    def _apply(self, messages: list[dict[str, str]]) -> list[int]:
        ids = self.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
            enable_thinking=False,  # templates of reasoning models would open a thought otherwise
        )
        return list(ids)
