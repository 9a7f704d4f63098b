-- Reads all orders, and locks nobody out.
ALTER TABLE orders VALIDATE CONSTRAINT orders_price_terms;
