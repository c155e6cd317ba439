# The API's image: the HTTP service and the migrations. No torch, no worker.
# It needs neither BuildKit nor a network beyond pip's; see deploy/wheels/README.md for builds without one.

FROM python:3.11-slim-bookworm AS requirements
WORKDIR /build
COPY pyproject.toml constraints.txt deploy/requirements.py ./
RUN python requirements.py api tracing

# Copied by content: this stage is built again when a package changes, not when the code does.
FROM python:3.11-slim-bookworm AS packages
ARG PIP_CERT
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/venv
COPY deploy/wheels /wheels
COPY --from=requirements /build/packages.txt /build/pins.txt /build/
RUN python -m pip --python /opt/venv/bin/python install --only-binary :all: --find-links /wheels \
    --constraint /build/pins.txt --requirement /build/packages.txt

FROM python:3.11-slim-bookworm
# A new volume takes the owner of the folder that it is mounted on. /queue is
# Redis's, /metrics Prometheus's: their images know no such user.
RUN groupadd --gid 10001 finetuned \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin finetuned \
    && install --directory --owner 10001 --group 10001 /data /models /queue /metrics
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app HOME=/tmp
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY --from=requirements /build/METADATA finetuned.dist-info/METADATA
COPY shared shared
COPY api api
COPY ui ui
# Readable by the user below, whatever the umask of the checkout was.
RUN chmod -R a+rX . && python -m compileall -q shared api ui
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["python", "-m", "api"]
