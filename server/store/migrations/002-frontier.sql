-- The frontier and the sites' side: politeness, robots.txt, budgets, coming back, opting out.

-- Politeness: one clock a host -----------------------------------------------

alter table host drop constraint host_robots_state_check;
update host set robots_state = 'unknown' where robots_state = 'asked';
alter table host
  add constraint host_robots_state_check
    check (robots_state in ('unknown', 'rules', 'allow-all', 'disallow-all')),
  -- What the host asked for, and what its response times ask for. interval_ms is the campaigns'.
  add column crawl_delay_ms integer not null default 0,
  add column adaptive_ms integer not null default 0,
  add column pace_ms integer not null
    generated always as (greatest(interval_ms, crawl_delay_ms, adaptive_ms)) stored,
  -- Smoothed time to the first byte.
  add column response_ms real,
  -- 429 and 503 one after another; the hold itself is next_at. Why, for people.
  add column holds integer not null default 0,
  add column hold_until timestamptz,
  add column hold_reason text,
  -- When robots.txt is to be asked for; null while somebody is asked, or nothing is to be done.
  add column robots_due_at timestamptz default now(),
  -- Fetches in a row that left it unresolved.
  add column robots_failures integer not null default 0,
  -- What decided: a status, a failure, a redirect the auditor followed.
  add column robots_reason text;
update host set robots_due_at = robots_at + interval '20 hours' where robots_at is not null;
create index host_robots_due on host (robots_due_at) where robots_due_at is not null;

-- Every robots.txt that was ever in force, by the digest that records name.
create table robots_file (
  digest bytea primary key,
  body text not null,
  first_seen_at timestamptz not null default now()
);
insert into robots_file (digest, body)
  select robots_digest, robots_text from host where robots_digest is not null
  on conflict do nothing;

-- A wish about use that holds for a whole host: from robots.txt and from files beside it.
create table host_signal (
  host_id bigint not null references host,
  source text not null,
  name text not null,
  value text not null,
  seen_at timestamptz not null default now(),
  primary key (host_id, source, name, value)
);

-- What each campaign has to do on each host. ready and due_at are hints: the host's row decides.
create table queue (
  campaign bytea not null references campaign,
  host_id bigint not null references host,
  ready boolean not null default false,
  due_at timestamptz not null default now(),
  -- Addresses in the frontier, and addresses that a rule kept out of it.
  pages bigint not null default 0,
  refused bigint not null default 0,
  primary key (campaign, host_id)
);
create index queue_due on queue (campaign, due_at) where ready;
create index queue_host on queue (host_id);

-- Tasks: one visit of one address --------------------------------------------

-- found: to be decided. held: waits for the host's robots.txt. open: wants observers.
alter table task drop constraint task_state_check;
alter table task add constraint task_state_check
  check (state in ('found', 'held', 'open', 'waiting', 'closed'));
alter table task
  drop constraint task_campaign_kind_url_digest_key,
  add column visit integer not null default 0,
  -- Lower is sooner. robots.txt is below zero.
  add column priority integer not null default 0,
  -- How it was found: seed, link, canonical, sitemap, feed, redirect, robots, revisit.
  add column found_as text not null default 'link',
  -- Addresses of one shape, one after another, that led here.
  add column chain integer not null default 0,
  -- Of its address, as in url_shape.
  add column shape bytea,
  add constraint task_visit unique (campaign, kind, url_digest, visit);
drop index task_open;
create index task_open on task (host_id, campaign, priority, id)
  where state = 'open' and granted < wanted;
create index task_fresh on task (host_id, campaign, priority, id)
  where state = 'open' and granted = 0;
drop index task_found;
create index task_found on task (id) where state = 'found';
create index task_refused on task (host_id) where verdict = 'refused';
create index task_host on task (host_id, id) where state <> 'closed';

insert into queue (campaign, host_id, ready, pages)
  select campaign, host_id, true, count(*) filter (where kind = 'page')
  from task group by campaign, host_id;
alter table campaign
  add column pages bigint not null default 0,
  -- When its seeds went into the frontier.
  add column seeded_at timestamptz;
update campaign c set seeded_at = now() where exists (select 1 from task t where t.campaign = c.digest);
update campaign c set pages = (select coalesce(sum(q.pages), 0) from queue q where q.campaign = c.digest);

-- One row for each address that was visited: when to come back.
create table page (
  campaign bytea not null references campaign,
  url_digest bytea not null,
  host_id bigint not null references host,
  url text not null,
  depth integer not null,
  priority integer not null,
  -- Of the last task.
  visit integer not null,
  visits integer not null default 0,
  changes integer not null default 0,
  -- Attempts in a row that brought nothing.
  failures integer not null default 0,
  first_visit_at timestamptz,
  last_visit_at timestamptz,
  text_digest bytea,
  due_at timestamptz,
  primary key (campaign, url_digest)
);
create index page_due on page (due_at) where due_at is not null;

-- Addresses of one shape on one host: how many are known, how many brought something new.
create table url_shape (
  campaign bytea not null references campaign,
  host_id bigint not null references host,
  shape bytea not null,
  known integer not null default 0,
  fresh integer not null default 0,
  primary key (campaign, host_id, shape)
);

-- The auditor's: what lies outside contributors' consent -------------------------

create table auditor_task (
  id bigint generated always as identity primary key,
  kind text not null
    check (kind in ('robots', 'sitemap', 'use-file', 'opt-out-file', 'opt-out-dns')),
  -- What it is for: a host for robots.txt, sitemaps and files about use; an opt-out for its proof.
  host_id bigint references host,
  campaign bytea references campaign,
  opt_out bytea,
  -- An address, or for opt-out-dns a name.
  target text not null,
  -- Of a sitemap below a sitemap index.
  depth integer not null default 0,
  state text not null default 'due' check (state in ('due', 'taken', 'done', 'failed')),
  due_at timestamptz not null default now(),
  taken_at timestamptz,
  attempts integer not null default 0,
  done_at timestamptz,
  reason text
);
create unique index auditor_task_once on auditor_task
  (kind, target, coalesce(campaign, ''::bytea), coalesce(opt_out, ''::bytea));
create index auditor_task_due on auditor_task (due_at) where state = 'due';
create index auditor_task_taken on auditor_task (taken_at) where state = 'taken';
create index auditor_task_host on auditor_task (host_id);
create index auditor_task_opt_out on auditor_task (opt_out) where opt_out is not null;

-- Opting out -------------------------------------------------------------------

create table opt_out (
  id bytea primary key,
  scope text not null check (scope in ('host', 'prefix', 'domain')),
  -- Lower-case ASCII name; for a prefix also the path it begins with.
  host text not null,
  path text not null default '/',
  token text not null,
  state text not null default 'waiting'
    check (state in ('waiting', 'verified', 'failed', 'withdrawn')),
  reason text,
  requested_at timestamptz not null default now(),
  -- When the proof was found: from then on nothing is leased.
  verified_at timestamptz,
  tasks bigint not null default 0,
  leases bigint not null default 0,
  records bigint not null default 0,
  leaf_index bigint
);
create index opt_out_verified on opt_out (host) where state = 'verified';
create index opt_out_waiting on opt_out (requested_at) where state = 'waiting';

alter table record add column removed_by bytea references opt_out;
-- How many addresses have the same text: a soft 404.
create index record_text on record (campaign, text_digest);
alter table auditor_task add constraint auditor_task_opt_out foreign key (opt_out) references opt_out;

-- Stopping -----------------------------------------------------------------------

alter table campaign drop constraint campaign_state_check;
alter table campaign add constraint campaign_state_check
  check (state in ('running', 'paused', 'exhausted', 'stopped'));
create table halt (
  singleton boolean primary key default true check (singleton),
  at timestamptz not null default now(),
  reason text
);

-- Wide campaigns -----------------------------------------------------------------

create table domain_list (
  root bytea primary key,
  size integer not null,
  added_at timestamptz not null default now()
);
create table listed_domain (
  root bytea not null references domain_list,
  -- Sorted by bytes, like the list.
  name text collate "C" not null,
  index integer not null,
  primary key (root, name)
);
-- Hashes of one level of the list's tree, 256 a row.
create table domain_tile (
  root bytea not null references domain_list,
  level integer not null,
  index integer not null,
  hashes bytea not null,
  primary key (root, level, index)
);
