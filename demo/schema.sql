-- The demo's database: campaigns, their players, and what happened.
begin;

create table campaigns (
    id integer generated always as identity primary key,
    name text not null unique,
    master text not null
);

create table players (
    id integer generated always as identity primary key,
    name text not null,
    email text not null unique,
    last_seen timestamptz
);

create table seats (
    campaign_id integer not null references campaigns,
    player_id integer not null references players,
    character text not null,
    primary key (campaign_id, player_id)
);

create table sessions (
    id bigint generated always as identity primary key,
    campaign_id integer not null references campaigns,
    played_on date not null,
    experience integer not null check (experience >= 0),
    notes text not null
);
create index on sessions (campaign_id, played_on);

insert into campaigns (name, master) select 'Campaign ' || i, 'Master ' || i % 7 from generate_series(1, 40) i;
insert into players (name, email) select 'Player ' || i, 'player' || i || '@example.org' from generate_series(1, 400) i;
insert into seats select 1 + i % 40, i, 'Character ' || i from generate_series(1, 400) i;
insert into sessions (campaign_id, played_on, experience, notes)
select 1 + i % 40, date '2020-01-01' + i % 2000, i % 900, md5(i::text) || md5((i * 7)::text)
from generate_series(1, 40000) i;

commit;
