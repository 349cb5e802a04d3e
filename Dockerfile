# One image for the head and the workers of the service.
#
#   docker build --tag collegium:0.1.0 .
#   docker build --tag collegium:0.1.0-cuda --build-arg VARIANT=cuda .
#   docker build --tag collegium:0.1.0-baked \
#     --build-arg BAKED_MODELS="smollm2-135m-instruct all-minilm-l6-v2" .
#
# VARIANT        cpu, or cuda: PyTorch's default wheels bring CUDA along, nodes need a driver only.
# BAKED_MODELS   sources that `collegium models pull` leaves in /opt/collegium/models; the
#                configuration then names folders there. Empty: fetched at the start of a pod.
#
# Versions are those of constraints.txt; the chart's rayVersion must be the Ray there.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG VARIANT=cpu
# Where CPU wheels of PyTorch come from; empty for pip's own configuration.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/collegium/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /opt/collegium/venv \
    && case "$VARIANT" in \
         cpu) pip install ${TORCH_CPU_INDEX:+--index-url "$TORCH_CPU_INDEX"} torch ;; \
         cuda) pip install torch ;; \
         *) echo "VARIANT must be cpu or cuda, not '$VARIANT'" >&2; exit 1 ;; \
       esac
# Dependencies before sources, so that a changed source does not install them again.
COPY pyproject.toml README.md LICENSE ./
RUN pip install ".[serve]"
COPY orchestrator orchestrator
COPY router router
COPY retrieval retrieval
COPY experts experts
RUN pip install --no-deps --force-reinstall .

FROM ${BASE_IMAGE}
ARG BAKED_MODELS=""
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN groupadd --gid 1000 collegium \
    && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash collegium \
    && install --directory --owner 1000 --group 1000 /var/lib/collegium /opt/collegium/models
COPY --from=build /opt/collegium/venv /opt/collegium/venv
# KubeRay may start Ray from a login shell, which forgets the image's PATH.
RUN for name in ray serve collegium; do \
      ln -s "/opt/collegium/venv/bin/$name" "/usr/local/bin/$name"; \
    done
ENV PATH=/opt/collegium/venv/bin:$PATH \
    COLLEGIUM_HOME=/var/lib/collegium \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
# As a number, so that Kubernetes can see that it is not root.
USER 1000:1000
WORKDIR /home/collegium
RUN if [ -n "$BAKED_MODELS" ]; then \
      COLLEGIUM_HOME=/opt/collegium collegium models pull $BAKED_MODELS \
      && rm -rf /opt/collegium/models/.downloads; \
    fi
EXPOSE 8000
CMD ["collegium", "serve"]
