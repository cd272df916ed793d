"""The named endpoints, for gradio_client, curl and other programs."""
