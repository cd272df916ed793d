"""What Hugging Face Spaces runs: the app with the embedded model."""

from promptclf.ui import build_app, launch_settings

demo = build_app()

if __name__ == "__main__":
    demo.launch(**launch_settings())
