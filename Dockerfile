# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The queries were checked against .sqlx/: no database is needed here.
ENV SQLX_OFFLINE=true
# The caches live outside the image, so the binary is copied out of the cached folder in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin grantonce \
    && cp target/dist/grantonce /usr/local/bin/grantonce

FROM debian:bookworm-slim
# For TLS towards providers, Postgres and RabbitMQ.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/grantonce /usr/local/bin/grantonce
# A number, so that Kubernetes' runAsNonRoot can see that it is not root. Nothing is written to disk.
USER 10001:10001
ENTRYPOINT ["grantonce"]
CMD ["--help"]
