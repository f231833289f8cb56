# hpcbinder's own image: the command line with all it builds and converts with, and no daemon.
#
#   docker build --tag hpcbinder .            (BuildKit; or: podman build --tag hpcbinder .)
#   docker run --rm hpcbinder plan https://github.com/org/repository
#
# docs/container.md says what `build` inside a container needs. BASE may be any Debian 12 or newer: an image of a registry,
# or the base that hpcbinder makes itself.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS package
ENV DEBIAN_FRONTEND=noninteractive
# A site's mirrors, proxies and certificates: the same secrets as in the builds hpcbinder runs, and optional like there.
RUN --mount=type=secret,id=hpcbinder-ca,target=/run/hpcbinder/site/ca.pem \
    --mount=type=secret,id=hpcbinder-apt,target=/run/hpcbinder/site/apt.conf \
    --mount=type=secret,id=hpcbinder-sources,target=/run/hpcbinder/site/sources.list \
    --mount=type=secret,id=hpcbinder-env,target=/run/hpcbinder/site/env \
    if [ -r /run/hpcbinder/site/env ]; then . /run/hpcbinder/site/env; fi; \
    apt-get -qq update && apt-get -qq install -y --no-install-recommends ca-certificates python3 python3-venv
COPY pyproject.toml README.md /src/
COPY hpcbinder /src/hpcbinder
COPY buildpacks /src/buildpacks
COPY docs/man /src/docs/man
RUN --mount=type=secret,id=hpcbinder-ca,target=/run/hpcbinder/site/ca.pem \
    --mount=type=secret,id=hpcbinder-env,target=/run/hpcbinder/site/env \
    if [ -r /run/hpcbinder/site/env ]; then . /run/hpcbinder/site/env; fi; \
    python3 -m venv /opt/hpcbinder-cli && /opt/hpcbinder-cli/bin/pip install --quiet --no-cache-dir /src

FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive
RUN --mount=type=secret,id=hpcbinder-ca,target=/run/hpcbinder/site/ca.pem \
    --mount=type=secret,id=hpcbinder-apt,target=/run/hpcbinder/site/apt.conf \
    --mount=type=secret,id=hpcbinder-sources,target=/run/hpcbinder/site/sources.list \
    --mount=type=secret,id=hpcbinder-env,target=/run/hpcbinder/site/env \
    if [ -r /run/hpcbinder/site/env ]; then . /run/hpcbinder/site/env; fi; \
    apt-get -qq update && apt-get -qq install -y --no-install-recommends \
    buildah ca-certificates fuse-overlayfs git mmdebstrap openssh-client python3 python3-venv uidmap && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=package /opt/hpcbinder-cli /opt/hpcbinder-cli
# Images, layers, bases and locks are kept in the one volume, what buildah has built in the other. chroot: there is no
# container runtime in here, nor need of one.
ENV PATH=/opt/hpcbinder-cli/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HPCBINDER_BUILD_ISOLATION=chroot \
    HPCBINDER_STORE_PATH=/var/lib/hpcbinder
VOLUME ["/var/lib/hpcbinder", "/var/lib/containers"]
WORKDIR /work
ENTRYPOINT ["hpcbinder"]
CMD ["--help"]
