# Two images from one source: `serve`, the default, and `train`, which has torch.
#   make image                                       serve, with labels that say what it was built from
#   docker build --build-arg PYTHON_IMAGE=... .      another base, or one pinned by digest
#   docker build --build-arg EXTRAS="store otel" --build-arg PACKAGES=s3fs .      extras of the service, and more packages
# An image is a virtual environment made in one stage and copied into another: no compiler, no pip, not root.
ARG PYTHON_IMAGE=python:3.11-slim

# ---------------------------------------------------------------- dependencies
# Before the source: while these two files stand still, the slow layers come from the build cache.
FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /src
COPY pyproject.toml constraints.txt ./
ARG EXTRAS= PACKAGES=
# --without-pip: what runs installs nothing. The builder's own pip fills the environment from outside.
RUN python -m venv --without-pip /opt/venv \
 && python -c "import sys, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *(r for extra in sys.argv[1].split() for r in p['optional-dependencies'][extra]), *sys.argv[2].split(), sep='\n')" \
      "${EXTRAS}" "${PACKAGES}" > requirements.txt \
 && pip --python /opt/venv install --no-cache-dir -c constraints.txt -r requirements.txt

FROM dependencies AS train-dependencies
# What PyPI has for Linux brings gigabytes for GPUs; an index with torch for CPUs, as torch's own site has it, spares them.
ARG TORCH_INDEX=
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['train'], sep='\n')" \
      > requirements.txt \
 && pip --python /opt/venv install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt \
      -r requirements.txt

# ---------------------------------------------------------------- source
FROM dependencies AS build-serve
COPY README.md LICENSE ./
COPY beexformer beexformer
COPY app app
COPY model model
RUN pip --python /opt/venv install --no-cache-dir --no-deps . \
 && find /opt/venv -type d -name tests -prune -exec rm -rf {} +
ENV PATH=/opt/venv/bin:$PATH \
    NUMBA_CACHE_DIR=/opt/kernels
# The kernels are compiled under the path that will load them (-P: not the source beside us), for every level of
# instructions, whatever this CPU has.
RUN python -P -m beexformer.model.kernel_cache \
 && beexformer classify "a warm, funny film"

FROM train-dependencies AS build-train
COPY README.md LICENSE ./
COPY beexformer beexformer
COPY app app
COPY model model
COPY training training
COPY report report
RUN pip --python /opt/venv install --no-cache-dir --no-deps .

# ---------------------------------------------------------------- images
FROM ${PYTHON_IMAGE} AS base
# A temporary folder is all that it writes to; beside it, /var/lib/beexformer is there for checkpoints in a volume.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN find /usr \( -path '*/ensurepip' -o -path '*/python-wheels' -o -path '/usr/*bin/pip*' -o -path '*-packages/pip*' \
      -o -path '*-packages/setuptools*' -o -path '*-packages/pkg_resources' -o -path '*-packages/wheel*' \
      -o -path '*-packages/*distutils*' \) \
      -prune -exec rm -rf {} + \
 && install --directory --owner=10001 --group=10001 /var/lib/beexformer
WORKDIR /var/lib/beexformer

FROM base AS train
COPY --from=build-train /opt /opt
USER 10001:10001
ENTRYPOINT ["beexformer"]
CMD ["train", "--help"]

FROM base AS serve
ENV BEE_HOST=0.0.0.0 \
    NUMBA_CACHE_DIR=/opt/kernels
COPY --from=build-serve /opt /opt
# By number, so that an orchestrator can see that it isn't root.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('BEE_PORT') or 8000}/readyz\", timeout=2)"]
ENTRYPOINT ["beexformer"]
CMD ["serve"]
# Last, because they change with every build.
ARG VERSION= REVISION= CREATED= SOURCE=
LABEL org.opencontainers.image.title="beexformer" \
      org.opencontainers.image.description="Text classification on a CPU with a 1-bit early-exit transformer" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
