#!/bin/sh
# The permissions of the RabbitMQ users. Run this script where rabbitmqctl works, with the providers that relays publish for:
#
#     VHOST=/ deploy/rabbitmq-permissions.sh acme-pay other-pay
#
# Run it again when that list grows. You can run it as often as you like. RABBITMQCTL=echo shows what it would do. The users must
# exist: `rabbitmqctl add_user grantonce-worker` asks for a password. A relay's user is `grantonce-relay-<provider>`.
#
# A user who may publish to `payments` or `payments.dead` may cause grants. So:
# - Only `grantonce migrate` creates or deletes anything. It may write only where RabbitMQ requires it to declare a queue.
# - The receiver publishes under the keys of its own providers.
# - A relay publishes to `payments` under its own provider's key, and nowhere else. It may not publish to the default exchange,
#   because workers recognise their own retries by that exchange.
# - The reconciler reads hints, and publishes the answers of providers.
# - ops reads the dead letters, and publishes them again under their first key.
# - The worker reads its queue, and publishes copies for retries and dead letters.
#
# `^$` matches nothing.
set -eu

vhost=${VHOST:-/}

# Check these words first, because they become part of patterns.
for provider in "$@"; do
    case $provider in
    '' | [!a-z0-9]* | *[!a-z0-9_-]*)
        echo "$provider is no provider: 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or digit" >&2
        exit 2
        ;;
    esac
done

permit() { # user, configure, write, read
    ${RABBITMQCTL:-rabbitmqctl} set_permissions -p "$vhost" "$1" "$2" "$3" "$4"
}

permit_keys() { # user, exchange, routing keys it may publish under; it may bind nothing
    ${RABBITMQCTL:-rabbitmqctl} set_topic_permissions -p "$vhost" "$1" "$2" "$3" '^$'
}

exchanges='payments|payments\.hints|payments\.retry|payments\.dead'
queues='payments\.hints|fulfilment|fulfilment\.retry\.[^.]+|fulfilment\.dead'

# To declare a queue that dead-letters, a user must be allowed to read the queue and to write to the exchange of its dead letters.
# `amq.default` is the name of the default exchange in permissions. To bind, a user writes to the queue and reads from the exchange.
permit grantonce-migrate "^($exchanges|$queues)\$" "^($queues|payments\.dead|amq\.default)\$" "^($exchanges|$queues)\$"

permit grantonce-receiver '^$' '^(payments|payments\.hints|payments\.dead)$' '^$'
for exchange in payments payments.hints payments.dead; do
    permit_keys grantonce-receiver "$exchange" '^payment\.(stripe|paypal|adyen|standard)$'
done

permit grantonce-reconciler '^$' '^(payments|payments\.dead)$' '^payments\.hints$'
for exchange in payments payments.dead; do
    permit_keys grantonce-reconciler "$exchange" '^payment\.(stripe|paypal)$'
done

permit grantonce-ops '^$' '^(payments|payments\.hints)$' '^fulfilment\.dead$'

permit grantonce-worker '^$' '^(payments\.retry|payments\.dead)$' '^fulfilment$'

for provider in "$@"; do
    permit "grantonce-relay-$provider" '^$' '^payments$' '^$'
    permit_keys "grantonce-relay-$provider" payments "^payment\\.$provider\$"
done
