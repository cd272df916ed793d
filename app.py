"""What Hugging Face Spaces runs: the app with the model that the environment names."""

from promptclf.ui import build_app, run, space_service

demo = build_app(space_service())

if __name__ == "__main__":
    run(demo)
