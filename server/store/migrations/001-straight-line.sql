-- The straight line: schedule, lease, fetch, observe, verify, attest, dedupe, credit, publish.
-- Nothing newer than PostgreSQL 15. Digests, keys and ids are raw bytes.

create table network_document (
  singleton boolean primary key default true check (singleton),
  envelope jsonb not null
);

-- Contributors -------------------------------------------------------------

create table challenge (
  id bytea primary key,
  expires_at timestamptz not null
);
create index challenge_expiry on challenge (expires_at);

create table node (
  id bytea primary key,
  account_id bytea not null,
  public_key bytea not null unique,
  client text not null,
  registered_at timestamptz not null default now(),
  seen_at timestamptz not null default now()
);
create index node_account on node (account_id);
create index node_seen on node (seen_at);

-- Every network block that a node was ever seen from: IPv4 /24, IPv6 /48. No address is stored.
create table node_block (
  node_id bytea not null references node,
  block text not null,
  block_wide text not null,
  first_seen_at timestamptz not null default now(),
  primary key (node_id, block)
);
create index node_block_block on node_block (block);

create table session (
  token_digest bytea primary key,
  node_id bytea not null references node,
  block text not null,
  expires_at timestamptz not null
);
create index session_expiry on session (expires_at);
create index session_node on session (node_id);

-- Campaigns and sites ------------------------------------------------------

create table campaign (
  digest bytea primary key,
  id text not null unique,
  envelope jsonb not null,
  manifest jsonb not null,
  state text not null default 'running' check (state in ('running', 'exhausted', 'stopped')),
  leaf_index bigint,
  created_at timestamptz not null default now()
);

create table consent (
  node_id bytea not null references node,
  campaign bytea not null references campaign,
  act text not null check (act in ('given', 'withdrawn')),
  envelope jsonb not null,
  at timestamptz not null default now(),
  primary key (node_id, campaign)
);

-- One row for each origin: the one clock and the one mutex of its politeness.
create table host (
  id bigint generated always as identity primary key,
  origin text not null unique,
  interval_ms integer not null,
  max_in_flight integer not null,
  in_flight integer not null default 0 check (in_flight >= 0),
  next_at timestamptz not null default now(),
  robots_state text not null default 'unknown'
    check (robots_state in ('unknown', 'asked', 'rules', 'allow-all', 'disallow-all')),
  robots_text text,
  robots_digest bytea,
  robots_at timestamptz
);

create table task (
  id bigint generated always as identity primary key,
  campaign bytea not null references campaign,
  host_id bigint not null references host,
  kind text not null check (kind in ('page', 'robots')),
  url text not null,
  url_digest bytea not null,
  depth integer not null,
  -- found: waits for robots. open: wants observers. waiting: has as many as it wants.
  state text not null check (state in ('found', 'open', 'waiting', 'closed')),
  wanted smallint not null,
  -- Leases that are live or were answered.
  granted smallint not null default 0 check (granted >= 0),
  -- A fact arrived since the last decision.
  news boolean not null default false,
  found_at timestamptz not null default now(),
  closed_at timestamptz,
  verdict text,
  reason text,
  unique (campaign, kind, url_digest)
);
create index task_open on task (host_id, depth, id) where state = 'open' and granted < wanted;
create index task_found on task (host_id, id) where state = 'found';
create index task_news on task (id) where news;

-- Work ---------------------------------------------------------------------

create table lease (
  id bytea primary key,
  task_id bigint not null references task,
  host_id bigint not null references host,
  node_id bytea not null references node,
  account_id bytea not null,
  block text not null,
  nonce bytea not null,
  state text not null check (state in ('live', 'answered', 'refused', 'expired')),
  issued_at timestamptz not null default now(),
  expires_at timestamptz not null,
  reason text
);
create index lease_task on lease (task_id);
create index lease_live on lease (expires_at) where state = 'live';
create index lease_node_live on lease (node_id) where state = 'live';

-- Acknowledged means durable. The statement is kept as the exact bytes that were signed.
create table observation (
  lease_id bytea primary key references lease,
  task_id bigint not null references task,
  statement text not null,
  key bytea not null unique,
  signature bytea not null,
  payload_digest bytea,
  received_at timestamptz not null default now()
);
create index observation_task on observation (task_id);

create table sentence_list (
  lease_id bytea primary key references observation,
  list bytea not null
);

create table payload (
  lease_id bytea primary key references observation,
  digest bytea not null,
  bytes bigint not null,
  blob text not null
);

-- What a worker thread read in a payload: list, main text, metadata.
create table analysis (
  lease_id bytea primary key references payload,
  analysis jsonb not null,
  list bytea not null
);

create table follow_up (
  id bytea primary key,
  lease_id bytea not null references observation,
  task_id bigint not null references task,
  node_id bytea not null references node,
  kind text not null check (kind in ('sentences', 'payload', 'attest')),
  request jsonb not null,
  state text not null check (state in ('asked', 'answered', 'refused', 'expired')),
  asked_at timestamptz not null default now(),
  expires_at timestamptz not null,
  reason text,
  -- SHA-256 of kind and request: the same question is asked once.
  ask bytea not null,
  unique (lease_id, ask)
);
create index follow_up_node on follow_up (node_id, asked_at) where state = 'asked';
create index follow_up_due on follow_up (expires_at) where state = 'asked';
create index follow_up_task on follow_up (task_id);

create table attestation (
  lease_id bytea not null references observation,
  text_digest bytea not null,
  task_id bigint not null references task,
  gaps integer not null,
  envelope jsonb not null,
  primary key (lease_id, text_digest)
);
create index attestation_task on attestation (task_id);

-- What each lease came to; what a node is told, in its own order.
create table outcome (
  sequence bigint generated always as identity primary key,
  lease_id bytea not null unique references lease,
  node_id bytea not null references node,
  verdict text not null,
  grade text,
  duplicate boolean not null default false,
  points bigint not null default 0,
  at timestamptz not null default now()
);
create index outcome_node on outcome (node_id, sequence);

-- Dataset ------------------------------------------------------------------

create table record (
  id bigint generated always as identity primary key,
  task_id bigint not null unique references task,
  campaign bytea not null references campaign,
  row_json text not null,
  salt bytea not null,
  text_digest bytea not null,
  text_blob text not null,
  duplicate_of bigint references record,
  payload_lease bytea references payload,
  leaf_index bigint,
  created_at timestamptz not null default now()
);
create index record_campaign on record (campaign, id);
create index record_unlogged on record (id) where leaf_index is null;

-- The first record of each text, in each campaign.
create table document (
  campaign bytea not null references campaign,
  text_digest bytea not null,
  record_id bigint not null references record,
  primary key (campaign, text_digest)
);

create table release (
  name text primary key,
  campaign bytea not null references campaign,
  folder text not null,
  rows bigint not null,
  duplicates bigint not null,
  sums bytea not null,
  leaf_index bigint not null,
  created_at timestamptz not null default now()
);

-- Ledger -------------------------------------------------------------------

create table account (
  id text primary key,
  kind text not null check (kind in ('issuance', 'campaign', 'node', 'operator', 'consumer')),
  debits_pending bigint not null default 0 check (debits_pending >= 0),
  debits_posted bigint not null default 0 check (debits_posted >= 0),
  credits_pending bigint not null default 0 check (credits_pending >= 0),
  credits_posted bigint not null default 0 check (credits_posted >= 0),
  -- A campaign cannot promise more than it holds.
  check (kind <> 'campaign' or credits_posted >= debits_posted + debits_pending)
);

create table transfer (
  id bytea primary key,
  debit_account text not null references account,
  credit_account text not null references account,
  amount bigint not null check (amount > 0),
  state text not null check (state in ('pending', 'posted', 'voided')),
  purpose text not null,
  funding text not null check (funding in ('subsidy', 'consumer')),
  -- What the formula was given, so that an audit can compute it again.
  inputs jsonb not null,
  -- SHA-256(salt ‖ cause), the cause being a lease: still checkable after erasure.
  cause_commitment bytea not null,
  cause_salt bytea not null,
  epoch bigint,
  created_at timestamptz not null default now(),
  check (debit_account <> credit_account)
);
create index transfer_unsealed on transfer (id) where epoch is null;
create index transfer_credit on transfer (credit_account);

create table epoch (
  number bigint primary key,
  day date not null,
  transfers_root bytea not null,
  transfers bigint not null,
  balances_root bytea not null,
  accounts bigint not null,
  leaf_index bigint not null,
  sealed_at timestamptz not null default now()
);

-- Log ----------------------------------------------------------------------

create table log_leaf (
  index bigint primary key check (index >= 0),
  hash bytea not null,
  entry text not null
);
create index log_leaf_hash on log_leaf (hash);

create table log_checkpoint (
  size bigint primary key,
  root bytea not null,
  -- Compact range of the tree: the right edge that appending needs.
  range jsonb not null,
  note text not null,
  at timestamptz not null default now()
);
