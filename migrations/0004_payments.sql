-- An order's payments each have totals of their own (in `facts`), and an order may say what of a payment must equal its price.
--
-- The release before this one runs on this schema: every new column has a value that means what it did. No row is
-- rewritten. If a lock cannot be had within 5 s, nothing is changed; `grantonce migrate` again tries again.
SET LOCAL lock_timeout = '5s';

ALTER TABLE orders
    ADD COLUMN price_terms        text NOT NULL DEFAULT 'total',
    ADD COLUMN discount_max_minor bigint,                        -- the greatest discount to accept; for price_terms before_tax_and_discount
    -- What is there already has the defaults, so that only new rows need to be checked; 0005 looks at the others.
    ADD CONSTRAINT orders_price_terms CHECK (
        CASE price_terms
            WHEN 'total' THEN discount_max_minor IS NULL
            WHEN 'before_tax' THEN discount_max_minor IS NULL
            WHEN 'before_tax_and_discount' THEN discount_max_minor IS NOT NULL AND discount_max_minor BETWEEN 0 AND amount_minor
            ELSE false
        END) NOT VALID;

-- Orders of which more money is kept than they cost: paid twice, or too much. Few of many: a row comes with the message that
-- says so, and says 0 when the money has gone back. A table of its own, because an index on orders for them would have to be
-- built while no order can be written.
CREATE TABLE overpaid_orders (
    order_id       uuid PRIMARY KEY,
    overpaid_minor bigint NOT NULL CHECK (overpaid_minor >= 0),  -- beyond the price, in minor units of its currency
    since          timestamptz NOT NULL,                         -- when it was first overpaid
    updated_at     timestamptz NOT NULL
);
CREATE INDEX overpaid_orders_now ON overpaid_orders (since) WHERE overpaid_minor > 0;
