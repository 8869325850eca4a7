# docker build -t aftermath . && docker run -p 127.0.0.1:8080:8080 -v aftermath:/var/lib/aftermath aftermath

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/aftermath
COPY requirements-run.lock .
# Wheels only: what would have to be compiled is not what was tested.
RUN /opt/aftermath/bin/pip install --require-hashes --only-binary=:all: --requirement requirements-run.lock

FROM python:3.11-slim-bookworm
# A fixed number, so that the owner of a volume stays the same from image to image.
RUN groupadd --system --gid 10001 aftermath \
    && useradd --system --uid 10001 --gid aftermath --home-dir /var/lib/aftermath --create-home aftermath
COPY --from=build /opt/aftermath /opt/aftermath
WORKDIR /opt/aftermath/src
# Migrations are looked for beside the package.
COPY app app
COPY alembic alembic
ENV PATH=/opt/aftermath/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AFTERMATH_HOST=0.0.0.0 \
    AFTERMATH_PORT=8080 \
    AFTERMATH_DATA_DIR=/var/lib/aftermath
USER aftermath
# The built-in PostgreSQL, unless AFTERMATH_DATABASE_URL names another.
VOLUME /var/lib/aftermath
EXPOSE 8080
# Whether the process lives; whether its database does is /readyz, which no restart of this container would mend.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"AFTERMATH_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "app.cli"]
CMD ["serve"]
