# The workers' image: setup, training and inference differ in their command alone.
# It needs neither BuildKit nor a network beyond pip's; see deploy/wheels/README.md for builds without one.

FROM python:3.11-slim-bookworm AS requirements
WORKDIR /build
COPY pyproject.toml constraints.txt deploy/requirements.py ./
RUN python requirements.py worker tracing

# Copied by content: this stage is built again when a package changes, not when the code does.
FROM python:3.11-slim-bookworm AS packages
ARG PIP_CERT
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
# Which torch: any pip requirement. `==` also takes a CPU wheel (2.13.0+cpu) where pip finds one; `===` takes no such.
ARG TORCH=torch==2.13.0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/venv
COPY deploy/wheels /wheels
COPY --from=requirements /build/pins.txt /build/
# Torch first: it is the largest layer, and the one that changes least.
RUN python -m pip --python /opt/venv/bin/python install --only-binary :all: --find-links /wheels \
    --constraint /build/pins.txt "$TORCH"
COPY --from=requirements /build/packages.txt /build/
# rouge-score is the one package that is published without a wheel.
RUN python -m pip --python /opt/venv/bin/python install --only-binary :all: --no-binary rouge-score \
    --find-links /wheels --constraint /build/pins.txt --requirement /build/packages.txt

FROM python:3.11-slim-bookworm
# A new volume takes the owner of the folder that it is mounted on.
RUN groupadd --gid 10001 finetuned \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin finetuned \
    && install --directory --owner 10001 --group 10001 /data /models
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app HOME=/tmp \
    TOKENIZERS_PARALLELISM=false
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY --from=requirements /build/METADATA finetuned.dist-info/METADATA
COPY shared shared
COPY worker worker
# Readable by the user below, whatever the umask of the checkout was.
RUN chmod -R a+rX . && python -m compileall -q shared worker
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker.jobs", "training"]
