# The service: torch for processors, a user without rights, nothing written outside /data and /tmp.
#   docker build -t consilium .
ARG BASE_IMAGE=python:3.11-slim-bookworm

# Dependencies change seldom, the code and its version often: an upgrade brings only the layer of the code.
FROM ${BASE_IMAGE} AS declared
COPY pyproject.toml /
RUN python -c 'import tomllib; print(*tomllib.load(open("/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > /dependencies.txt

FROM ${BASE_IMAGE} AS dependencies
# Where the builds of torch for processors are; empty, pip takes what its configuration names.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/consilium && /opt/consilium/bin/pip install "pip>=25" "setuptools>=77"
WORKDIR /build
COPY requirements.lock ./
RUN /opt/consilium/bin/pip install --no-deps ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "$(grep -E '^torch==' requirements.lock)"
# The lock file's versions, without what only the tests need. A constraint must not name extras.
COPY --from=declared /dependencies.txt ./
RUN sed -E 's/\[[^]]*\]//' requirements.lock > constraints.txt \
 && /opt/consilium/bin/pip install --constraint constraints.txt --requirement dependencies.txt
# Kernels for GPUs, headers and tests: 1.1 GB that nothing here uses.
RUN /opt/consilium/bin/pip uninstall --yes triton && rm -r /opt/consilium/lib/python3.*/site-packages/torch/test /opt/consilium/lib/python3.*/site-packages/torch/include

FROM dependencies AS build
COPY . .
RUN /opt/consilium/bin/pip install --no-deps --no-build-isolation --target /app .
# The encoder is quantised once, here, instead of at every first start.
RUN cd / && PYTHONPATH=/app /opt/consilium/bin/python -c 'from pathlib import Path; from routers.onnx_model import OnnxTextModel; OnnxTextModel.open(Path("/data/cache"), num_threads=1)'

FROM ${BASE_IMAGE}
RUN groupadd --system --gid 10001 consilium \
 && useradd --system --uid 10001 --gid consilium --home-dir /data --no-create-home consilium \
 && install --directory --owner 10001 --group 10001 /models
COPY --from=dependencies /opt/consilium /opt/consilium
COPY --from=build /app /app
# A new volume on /data begins with this folder's content and owner, and one on /models with that folder's owner.
COPY --from=build --chown=10001:10001 /data /data
ENV PATH=/app/bin:/opt/consilium/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CONSILIUM_HOST=0.0.0.0 CONSILIUM_PORT=8080 CONSILIUM_DATA_DIR=/data
WORKDIR /data
USER consilium
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=10s --start-period=180s --retries=3 \
    CMD ["python", "-IS", "-c", "import socket; s = socket.create_connection(('127.0.0.1', 8080), 4); s.sendall(b'GET /ready HTTP/1.0\\r\\n\\r\\n'); assert b' 200 ' in s.recv(64)"]
ENTRYPOINT ["consilium"]
CMD ["serve"]
