-- A shop's own tables, and one trigger: each new order enqueues the job that writes its invoice.
create table incoming_orders (
  order_id integer, customer text, email text, country text, item text,
  quantity integer, unit_price numeric(10, 2), currency text, express boolean
);

create table orders (
  like incoming_orders,
  invoice     text,
  invoiced_at timestamptz,
  waited_ms   double precision,
  primary key (order_id)
);

create function enqueue_invoice() returns trigger language plpgsql as $$
begin
  perform enqueue_job('write_invoice', to_jsonb(new) - array['invoice', 'invoiced_at', 'waited_ms'],
                      queue    => 'invoices',
                      priority => case when new.express then 9 else 5 end);
  return null;
end;
$$;

create trigger orders_enqueue_invoice
  after insert on orders
  for each row execute function enqueue_invoice();
