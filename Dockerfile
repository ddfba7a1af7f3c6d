# syntax=docker/dockerfile:1
# The broker in a container without a shell. It runs as nobody's user, writes to /data only, and holds no state itself:
#   docker run --rm -v hallpass:/data hallpass init --dir /data
#   docker run --read-only -v hallpass:/data -p 8440:8440 hallpass
# With --ulimit memlock=-1 it locks its memory, which a machine with swap needs.
# Off loopback the listeners need TLS: set public.tls and admin.tls in /data/hallpass.yaml, and listen on 0.0.0.0.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/hallpass /hallpass
RUN mkdir /data && chown 65532:65532 /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /hallpass /usr/local/bin/hallpass
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
WORKDIR /data
VOLUME /data
ENV HALLPASS_CONFIG=/data/hallpass.yaml
EXPOSE 8440 8441
HEALTHCHECK --interval=10s --timeout=5s CMD ["/usr/local/bin/hallpass", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/hallpass"]
CMD ["serve", "--log-format", "json"]
