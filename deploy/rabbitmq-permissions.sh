#!/bin/sh
# Who may do what at RabbitMQ. Run it where rabbitmqctl works, with the providers that relays publish for:
#
#     VHOST=/ deploy/rabbitmq-permissions.sh acme-pay other-pay
#
# and again whenever that list grows; it can be run as often as you like. RABBITMQCTL=echo shows what it would do. The users
# must be there: `rabbitmqctl add_user grantonce-worker` asks for a password. A relay's user is `grantonce-relay-<provider>`.
#
# Who may publish to `payments` or `payments.dead` may grant. So:
# - only `grantonce migrate` makes or deletes anything, and it publishes nowhere but where declaring a queue asks for it;
# - the receiver publishes, under the keys of its own providers;
# - a relay publishes to `payments`, under its own provider's key, and nothing else: not to the default exchange either, by
#   which workers know their own retries;
# - the reconciler reads hints, and publishes what providers answer;
# - ops reads the dead letters, and sends them back to where they were published, under whatever key that was;
# - the worker reads its queue, and passes on what it cannot apply.
#
# `^$` matches nothing.
set -eu

vhost=${VHOST:-/}

# First of all: these words become part of patterns.
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

# A queue that dead-letters is only declared by who may read it and write where its letters go (`amq.default` is how
# permissions name the default exchange); binding writes to the queue and reads from the exchange.
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
