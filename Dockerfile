# syntax=docker/dockerfile:1

FROM rust:1-bookworm AS builder
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY config config
COPY crates crates
COPY loadtest loadtest
COPY src src
# The caches outlive the layer: after a change of the sources only tidegate itself is compiled again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin tidegate \
    && install -D --mode=755 target/release/tidegate /out/tidegate

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="A self-hosted WebSocket gateway with the contract of Amazon API Gateway's WebSocket APIs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /out/tidegate /usr/local/bin/tidegate
COPY config/container.yaml /etc/tidegate/tidegate.yaml
COPY LICENSE /usr/share/doc/tidegate/LICENSE
# A number, so that an orchestrator can see that it is not root.
USER 65532:65532
# 8080: clients. 8081: health, metrics and @connections; for the backends' network alone.
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
# The image has no HTTP client, but bash opens sockets. Another internal port needs another health check.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8081 && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["serve", "--config", "/etc/tidegate/tidegate.yaml"]
