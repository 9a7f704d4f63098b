# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The same build as that of a release. The caches are outside the image, so the same step copies the binary out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cp "$(./dev release --binary)" /usr/local/bin/grantonce

FROM debian:bookworm-slim
# Certificates for TLS connections to providers, Postgres and RabbitMQ.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/grantonce /usr/local/bin/grantonce
# A number, because Kubernetes' runAsNonRoot cannot check a name. The program writes nothing to disk.
USER 10001:10001
ENTRYPOINT ["grantonce"]
CMD ["--help"]
