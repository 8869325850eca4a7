# docker build -t aftermath . && docker run -p 127.0.0.1:8080:8080 -v aftermath:/var/lib/aftermath aftermath

# To pin it: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/aftermath && python -m venv /opt/build
COPY requirements-run.lock requirements-build.lock ./
# Wheels only: a package compiled here would not be the one that was tested.
RUN /opt/aftermath/bin/pip install --require-hashes --only-binary=:all: --requirement requirements-run.lock
RUN /opt/build/bin/pip install --require-hashes --only-binary=:all: --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN /opt/build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist .
RUN /opt/aftermath/bin/pip install --no-index --no-deps /dist/aftermath-*.whl

FROM ${PYTHON_IMAGE}
# New volumes mounted below aftermath-tokens, for `aftermath token create --file`, get its owner.
# A fixed number, so that the owner of a volume stays the same from image to image.
RUN groupadd --system --gid 10001 aftermath \
    && useradd --system --uid 10001 --gid aftermath --home-dir /var/lib/aftermath --create-home aftermath \
    && install --directory --owner=aftermath --group=aftermath --mode=0750 \
        /var/lib/aftermath-tokens/prometheus /var/lib/aftermath-tokens/alertmanager
COPY --from=build /opt/aftermath /opt/aftermath
WORKDIR /var/lib/aftermath
ENV PATH=/opt/aftermath/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AFTERMATH_HOST=0.0.0.0 \
    AFTERMATH_PORT=8080 \
    AFTERMATH_DATA_DIR=/var/lib/aftermath
USER aftermath
# The built-in PostgreSQL and the spool. With AFTERMATH_DATABASE_URL only the spool.
VOLUME /var/lib/aftermath
EXPOSE 8080
# Whether the process is alive. Whether its database answers is /readyz, which restarting this container would not fix.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"AFTERMATH_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["aftermath"]
CMD ["serve"]
