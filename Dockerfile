# The serving image: a virtual environment built in one stage and copied into another. No torch, no compiler, not root.
# Another base, or one pinned by digest: docker build --build-arg PYTHON_IMAGE=...
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /src
# --without-pip: a service that runs installs nothing. The builder's own pip fills the environment from outside.
RUN python -m venv --without-pip /opt/venv
# Dependencies before the source: while these two files stand still, the slow layer comes from the build cache.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.txt \
 && pip --python /opt/venv install --no-cache-dir -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY app app
COPY model model
RUN pip --python /opt/venv install --no-cache-dir --no-deps .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="beexformer" \
      org.opencontainers.image.description="Text classification on a CPU with a 1-bit early-exit transformer" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    BEE_HOST=0.0.0.0 \
    NUMBA_CACHE_DIR=/var/cache/beexformer
# numba uses a cache folder only if the process may write to it, and on a CPU other than the builder's it has to.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin beexformer \
 && install --directory --owner=beexformer --group=beexformer "$NUMBA_CACHE_DIR"
COPY --from=builder /opt/venv /opt/venv
# By number, so that an orchestrator can see that it isn't root.
USER 10001:10001
# The kernels are compiled here, by the user and under the path that will load them, and the shipped checkpoint is proved.
RUN beexformer classify "a warm, funny film"
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('BEE_PORT', 8000)}/readyz\", timeout=2)"]
ENTRYPOINT ["beexformer"]
CMD ["serve"]
