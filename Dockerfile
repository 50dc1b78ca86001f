# Two images of one installation, which download nothing when they run:
#   docker build --target serve -t facelm-serve .    facelm serve, on port 8000
#   docker build --target cli -t facelm .            any facelm command, in /work
ARG PYTHON=python:3.12-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE LICENSE-WEIGHTS ./
COPY facelm_sdk facelm_sdk
COPY models/facelm_models models/facelm_models
COPY export/facelm_export export/facelm_export
COPY training/facelm_training training/facelm_training
RUN python3 -m venv /opt/facelm \
    && /opt/facelm/bin/pip install --no-cache-dir ".[cpu-headless,serve]" \
    && /opt/facelm/bin/pip uninstall --yes pip

FROM ${PYTHON} AS run
COPY --from=build /opt/facelm /opt/facelm
ENV PATH=/opt/facelm/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["facelm"]

FROM run AS cli
CMD ["--help"]

FROM run AS serve
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["serve", "--host", "0.0.0.0"]
