-- What could not be applied, kept until an operator is done with it, and what was done about it.

-- One row a letter, however often the broker delivered it. `id` is a digest of message id, routing key, type and body: a copy
-- finds the row of the first one. Bodies may hold personal data: `grantonce forget` empties them.
CREATE TABLE dead_letters (
    id               uuid PRIMARY KEY,
    -- The message, as it was published first.
    message_id       text COLLATE "C" NOT NULL,            -- '' where it has none
    kind             text NOT NULL,                        -- the property type; '' where it has none
    routing_key      text NOT NULL,
    headers          jsonb NOT NULL,                       -- without the broker's own and ours
    body             bytea,                                -- none: emptied
    body_bytes       integer NOT NULL,                     -- how long it was; above what `body` holds: cut
    -- Why it is here.
    reason           text NOT NULL,
    cause            text NOT NULL,                        -- detail without what is this letter's own: letters of one group share it
    detail           text NOT NULL,
    origin           text NOT NULL CHECK (origin IN ('receiver', 'worker', 'reconciler', 'broker', 'publisher')),
    attempts         integer NOT NULL,                     -- tries before it was given up
    -- What it is about, as far as it can be read.
    provider         text COLLATE "C" NOT NULL,            -- '' where it names none
    payment_id       text COLLATE "C",
    order_id         uuid,                                 -- named by the message, or its payment's; no key: it may not exist yet
    account_id       text COLLATE "C",                     -- of that order, once it is known
    said             text,                                 -- in words, with the amount
    -- How it stands.
    state            text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replaying', 'resolved', 'archived')),
    state_at         timestamptz NOT NULL,                 -- since when
    state_by         text,                                 -- whose act it was; none: it came about by itself
    state_reason     text,
    first_seen_at    timestamptz NOT NULL,
    last_seen_at     timestamptz NOT NULL,
    seen             integer NOT NULL DEFAULT 1,           -- deliveries of it, copies included
    replays          integer NOT NULL DEFAULT 0,           -- the number of its last replay, which that replay's letter carries
    -- What a replay would come to, when it was looked at last.
    verdict          text,
    verdict_detail   text,
    checked_at       timestamptz
);
-- What operators look at: few rows of many.
CREATE INDEX dead_letters_open ON dead_letters (reason, provider, cause, first_seen_at) WHERE state IN ('open', 'replaying');
CREATE INDEX dead_letters_seen ON dead_letters (first_seen_at DESC, id DESC);
CREATE INDEX dead_letters_unchecked ON dead_letters (checked_at NULLS FIRST) WHERE state IN ('open', 'replaying');
CREATE INDEX dead_letters_settled ON dead_letters (state_at) WHERE state IN ('resolved', 'archived');
CREATE INDEX dead_letters_message ON dead_letters (message_id);
CREATE INDEX dead_letters_payment ON dead_letters (payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX dead_letters_order ON dead_letters (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX dead_letters_account ON dead_letters (account_id) WHERE account_id IS NOT NULL;

-- Letters that are sent back to work together.
CREATE TABLE replays (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at       timestamptz NOT NULL,
    actor            text NOT NULL,
    is_self_declared boolean NOT NULL,
    reason           text NOT NULL,
    selection        jsonb NOT NULL,                       -- what was asked for
    per_s_max        integer NOT NULL CHECK (per_s_max > 0),
    state            text NOT NULL CHECK (state IN ('canary', 'running', 'finished', 'canceled', 'stopped')),
    pace             text NOT NULL CHECK (pace IN ('canary', 'steady', 'singly')),
    letters          integer NOT NULL,                     -- that were taken
    busy_until       timestamptz NOT NULL,                 -- how far its time is filled with letters, at its rate
    ended_at         timestamptz,                          -- when its last letter's outcome was known
    note             text                                  -- why it was stopped
);
CREATE INDEX replays_under_way ON replays (id) WHERE ended_at IS NULL;

-- What became of each letter of a replay.
CREATE TABLE replay_letters (
    replay_id  bigint NOT NULL REFERENCES replays (id),
    position   integer NOT NULL,                           -- 1 is the canary
    letter_id  uuid NOT NULL REFERENCES dead_letters (id) ON DELETE CASCADE,
    number     integer NOT NULL,                           -- this letter's replays, this one included
    state      text NOT NULL DEFAULT 'queued' CHECK (state IN (
                   'queued', 'sent', 'resolved', 'dead_again', 'canceled', 'unanswered')),
    claimed_at timestamptz,
    sent_at    timestamptz,                                -- confirmed by the broker
    ended_at   timestamptz,
    PRIMARY KEY (replay_id, position)
);
CREATE UNIQUE INDEX replay_letters_letter ON replay_letters (letter_id, number);
CREATE INDEX replay_letters_under_way ON replay_letters (replay_id, position) WHERE state IN ('queued', 'sent');
