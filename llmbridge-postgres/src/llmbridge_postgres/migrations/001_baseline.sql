-- Calls, their rollups, models and prices. Money is whole units of 1e-12 dollar; text compares and sorts by code point;
-- metadata is json and not jsonb, so that a number keeps the text that it was written with. Views are for people.

-- This table keeps its form in all releases. A release may write if the number of its last migration is at least the
-- greatest `writable_from`.
CREATE TABLE {{tables.llmbridge_schema}} (
    migration text COLLATE "C" PRIMARY KEY,
    writable_from integer NOT NULL
);

INSERT INTO {{tables.llmbridge_schema}} (migration, writable_from) VALUES ('001_baseline', 1);

-- One row. Calls before `watermark` were purged (NULL: none was), whether or not they are deleted yet. `identity` tells
-- this schema from every other one, wherever it is moved; all releases read it. A transaction that changes rollups locks
-- the row; one that moves the watermark closes all lots.
CREATE TABLE {{tables.llmbridge_state}} (
    id integer PRIMARY KEY CHECK (id = 1),
    identity uuid NOT NULL,
    watermark timestamptz
);

-- A UUIDv7: milliseconds in 48 bits, before random ones. Version 4, which is what PostgreSQL makes, becomes 7 by 2 bits.
INSERT INTO {{tables.llmbridge_state}} (id, identity)
SELECT
    1,
    encode(
        set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING substring(milliseconds FROM 3) FROM 1), 52, 1), 53, 1),
        'hex'
    )::uuid
FROM int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS milliseconds;

-- Each writer marks its calls with a lot of its own. The calls of a lot are folded together, and then it is closed.
CREATE TABLE {{tables.llmbridge_lots}} (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    calls bigint NOT NULL,
    touched timestamptz NOT NULL,
    folded boolean NOT NULL
);

CREATE INDEX llmbridge_lots_open ON {{tables.llmbridge_lots}} (number) WHERE NOT folded;

CREATE TABLE {{tables.llmbridge_calls}} (
    id uuid PRIMARY KEY,
    lot bigint NOT NULL,
    called_at timestamptz NOT NULL,
    origin text COLLATE "C" NOT NULL,
    id_at_origin text COLLATE "C",
    provider text COLLATE "C" NOT NULL,
    model_name text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cache_read_tokens bigint,
    cache_write_tokens bigint,
    cache_write_1h_tokens bigint,
    reasoning_tokens bigint,
    estimated_cost bigint,
    cost_reason text COLLATE "C",
    response_time_ms bigint,
    time_to_first_token_ms bigint,
    -- Buckets of successful calls, so that summing them takes no logarithm.
    response_bucket integer,
    first_token_bucket integer,
    error_type text COLLATE "C",
    requested_model text COLLATE "C",
    usage_source text COLLATE "C" NOT NULL,
    cost_source text COLLATE "C",
    dollars_per_million_tokens_input_used bigint,
    dollars_per_million_tokens_output_used bigint,
    price_version text COLLATE "C",
    previous_cost bigint,
    previous_cost_reason text COLLATE "C",
    repriced_at timestamptz,
    stream boolean NOT NULL,
    finish_reason text COLLATE "C",
    response_id text COLLATE "C",
    group_id uuid,
    temperature double precision,
    max_tokens bigint,
    tools_used json,
    system_prompt_hash text COLLATE "C",
    metadata json,
    error_message text COLLATE "C",
    -- Further counts by unit, the terms of the price that the answer told, and the factor of list prices in units of
    -- 1e-12.
    usage_details json,
    price_context json,
    response_model text COLLATE "C",
    price_factor bigint
);

CREATE INDEX llmbridge_calls_by_time ON {{tables.llmbridge_calls}} (called_at, id);

CREATE INDEX llmbridge_calls_by_user ON {{tables.llmbridge_calls}} (origin, id_at_origin, called_at);

CREATE INDEX llmbridge_calls_by_lot ON {{tables.llmbridge_calls}} (lot);

-- A call as writers send it: a batch is an array of them. Writers of any release may send one, so it never changes; a
-- release that sends more brings a type of its own. JSON is sent as text.
CREATE TYPE {{tables.llmbridge_incoming}} AS (
    id uuid,
    group_id uuid,
    estimated_cost bigint,
    dollars_per_million_tokens_input_used bigint,
    dollars_per_million_tokens_output_used bigint,
    previous_cost bigint,
    tools_used text,
    metadata text,
    usage_details text,
    price_context text,
    price_factor bigint,
    called_at timestamptz,
    origin text,
    id_at_origin text,
    provider text,
    model_name text,
    status text,
    attempt bigint,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    cache_read_tokens bigint,
    cache_write_tokens bigint,
    cache_write_1h_tokens bigint,
    reasoning_tokens bigint,
    cost_reason text,
    response_time_ms bigint,
    time_to_first_token_ms bigint,
    error_type text,
    requested_model text,
    response_model text,
    usage_source text,
    cost_source text,
    price_version text,
    previous_cost_reason text,
    repriced_at timestamptz,
    stream boolean,
    finish_reason text,
    response_id text,
    temperature double precision,
    max_tokens bigint,
    system_prompt_hash text,
    error_message text,
    response_bucket integer,
    first_token_bucket integer
);

-- Rollups: sums of calls by user and UTC day, and by `grain` seconds from `start` on. `day` and `start` are seconds since
-- 1970; a call without a user has the user ''. Both primary keys begin with the time, so that new rows are appended, and
-- sums are numeric, of which a small one takes less room than a bigint. A histogram is `BUCKET` or `BUCKET:CALLS` with
-- commas between: llmbridge.storage.toolkit.rollups.
CREATE TABLE {{tables.llmbridge_usage_by_user}} (
    day bigint NOT NULL,
    origin text COLLATE "C" NOT NULL,
    id_at_origin text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model_name text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    calls numeric NOT NULL DEFAULT 0,
    requests numeric NOT NULL DEFAULT 0,
    unmeasured_calls numeric NOT NULL DEFAULT 0,
    unpriced_calls numeric NOT NULL DEFAULT 0,
    response_time_ms_count numeric NOT NULL DEFAULT 0,
    cost numeric NOT NULL DEFAULT 0,
    total_tokens numeric NOT NULL DEFAULT 0,
    prompt_tokens numeric NOT NULL DEFAULT 0,
    completion_tokens numeric NOT NULL DEFAULT 0,
    cache_read_tokens numeric NOT NULL DEFAULT 0,
    cache_write_tokens numeric NOT NULL DEFAULT 0,
    reasoning_tokens numeric NOT NULL DEFAULT 0,
    response_time_ms_sum numeric NOT NULL DEFAULT 0,
    -- Calls whose tokens were estimated, which no release writes yet.
    estimated_calls numeric NOT NULL DEFAULT 0,
    estimated_cost numeric NOT NULL DEFAULT 0,
    estimated_tokens numeric NOT NULL DEFAULT 0,
    response_time_histogram text,
    first_token_histogram text,
    PRIMARY KEY (day, origin, id_at_origin, provider, model_name, status)
);

CREATE TABLE {{tables.llmbridge_usage_by_time}} (
    grain bigint NOT NULL,
    start bigint NOT NULL,
    origin text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model_name text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    calls numeric NOT NULL DEFAULT 0,
    requests numeric NOT NULL DEFAULT 0,
    unmeasured_calls numeric NOT NULL DEFAULT 0,
    unpriced_calls numeric NOT NULL DEFAULT 0,
    response_time_ms_count numeric NOT NULL DEFAULT 0,
    cost numeric NOT NULL DEFAULT 0,
    total_tokens numeric NOT NULL DEFAULT 0,
    prompt_tokens numeric NOT NULL DEFAULT 0,
    completion_tokens numeric NOT NULL DEFAULT 0,
    cache_read_tokens numeric NOT NULL DEFAULT 0,
    cache_write_tokens numeric NOT NULL DEFAULT 0,
    reasoning_tokens numeric NOT NULL DEFAULT 0,
    response_time_ms_sum numeric NOT NULL DEFAULT 0,
    -- Calls whose tokens were estimated, which no release writes yet.
    estimated_calls numeric NOT NULL DEFAULT 0,
    estimated_cost numeric NOT NULL DEFAULT 0,
    estimated_tokens numeric NOT NULL DEFAULT 0,
    response_time_histogram text,
    first_token_histogram text,
    PRIMARY KEY (start, grain, origin, provider, model_name, status)
);

CREATE TABLE {{tables.llmbridge_models}} (
    provider text COLLATE "C" NOT NULL,
    model_name text COLLATE "C" NOT NULL,
    id bigint,
    display_name text COLLATE "C",
    description text COLLATE "C",
    max_context bigint,
    max_output_tokens bigint,
    supports_vision boolean NOT NULL,
    supports_function_calling boolean NOT NULL,
    supports_json_mode boolean NOT NULL,
    supports_parallel_tool_calls boolean NOT NULL,
    tool_call_format text COLLATE "C",
    dollars_per_million_tokens_input bigint,
    dollars_per_million_tokens_output bigint,
    source text COLLATE "C" NOT NULL,
    inactive_from timestamptz,
    created_at timestamptz,
    updated_at timestamptz,
    PRIMARY KEY (provider, model_name)
);

CREATE TABLE {{tables.llmbridge_prices}} (
    provider text COLLATE "C" NOT NULL,
    model_name text COLLATE "C" NOT NULL,
    -- The context of prices for which this one holds, as canonical JSON.
    context text COLLATE "C" NOT NULL DEFAULT '{}',
    effective_from timestamptz NOT NULL,
    input bigint,
    output bigint,
    cache_read bigint,
    cache_write bigint,
    cache_write_1h bigint,
    -- Rates of further units as JSON, and a factor of list prices, both in units of 1e-12.
    rates json,
    factor bigint,
    PRIMARY KEY (provider, model_name, context, effective_from)
);

CREATE VIEW {{tables.call_log}} AS
SELECT
    called_at,
    id,
    origin,
    id_at_origin,
    provider,
    model_name,
    requested_model,
    response_model,
    status,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cache_read_tokens,
    cache_write_tokens,
    cache_write_1h_tokens,
    reasoning_tokens,
    usage_details,
    usage_source,
    trim_scale(estimated_cost * 0.000000000001) AS estimated_cost,
    cost_source,
    cost_reason,
    trim_scale(dollars_per_million_tokens_input_used * 0.000000000001) AS dollars_per_million_tokens_input_used,
    trim_scale(dollars_per_million_tokens_output_used * 0.000000000001) AS dollars_per_million_tokens_output_used,
    price_context,
    price_version,
    trim_scale(price_factor * 0.000000000001) AS price_factor,
    trim_scale(previous_cost * 0.000000000001) AS previous_cost,
    previous_cost_reason,
    repriced_at,
    response_time_ms,
    time_to_first_token_ms,
    stream,
    finish_reason,
    response_id,
    attempt,
    group_id,
    temperature,
    max_tokens,
    tools_used,
    system_prompt_hash,
    error_type,
    error_message,
    metadata
FROM {{tables.llmbridge_calls}}
WHERE called_at >= coalesce((SELECT watermark FROM {{tables.llmbridge_state}}), '-infinity');

-- Sums of the rollups and of the calls that are in no rollup yet, by user and UTC day. The sums but those named
-- `failed_` are of calls that succeeded.
CREATE VIEW {{tables.usage_summary}} AS
WITH cells AS (
    SELECT
        day AS start,
        origin,
        nullif(id_at_origin, '') AS id_at_origin,
        provider,
        model_name,
        status,
        calls,
        unmeasured_calls,
        unpriced_calls,
        cost,
        total_tokens,
        response_time_ms_sum,
        response_time_ms_count
    FROM {{tables.llmbridge_usage_by_user}}
    UNION ALL
    SELECT
        extract(epoch FROM date_bin('1 day', greatest(called_at, '0001-01-01Z'), '0001-01-01Z'))::bigint,
        origin,
        id_at_origin,
        provider,
        model_name,
        status,
        1,
        (total_tokens IS NULL AND cost_reason IS DISTINCT FROM 'not_billed')::int,
        (estimated_cost IS NULL AND coalesce(cost_reason, '') NOT IN ('not_billed', 'synthetic'))::int,
        coalesce(estimated_cost, 0),
        coalesce(total_tokens, 0),
        coalesce(response_time_ms, 0),
        (response_time_ms IS NOT NULL)::int
    FROM {{tables.llmbridge_calls}}
    WHERE lot IN (SELECT number FROM {{tables.llmbridge_lots}} WHERE NOT folded)
),
sums AS (
    SELECT
        origin,
        id_at_origin,
        provider,
        model_name,
        start,
        coalesce(sum(calls) FILTER (WHERE status = 'success'), 0) AS calls,
        coalesce(sum(unmeasured_calls) FILTER (WHERE status = 'success'), 0) AS unmeasured,
        coalesce(sum(unpriced_calls) FILTER (WHERE status = 'success'), 0) AS unpriced,
        sum(cost) FILTER (WHERE status = 'success') AS cost,
        sum(total_tokens) FILTER (WHERE status = 'success') AS tokens,
        sum(response_time_ms_sum) FILTER (WHERE status = 'success') AS ms,
        sum(response_time_ms_count) FILTER (WHERE status = 'success') AS timed,
        coalesce(sum(calls) FILTER (WHERE status <> 'success'), 0) AS failed_calls,
        coalesce(sum(cost) FILTER (WHERE status <> 'success'), 0) AS failed_cost
    FROM cells
    GROUP BY origin, id_at_origin, provider, model_name, start
)
SELECT
    origin,
    id_at_origin,
    provider,
    model_name,
    calls::bigint AS call_count,
    CASE WHEN calls > unmeasured THEN tokens END AS total_tokens,
    CASE WHEN calls > unpriced THEN trim_scale(cost * 0.000000000001) END AS total_cost,
    (ms / nullif(timed, 0))::double precision AS avg_response_time,
    (to_timestamp(start) AT TIME ZONE 'UTC')::date AS date,
    unpriced::bigint AS unpriced_calls,
    unmeasured::bigint AS unmeasured_calls,
    failed_calls::bigint AS failed_calls,
    trim_scale(failed_cost * 0.000000000001) AS failed_cost
FROM sums;

-- Sums of all calls by hour and status.
CREATE VIEW {{tables.usage_hours}} AS
WITH cells AS (
    SELECT
        start,
        origin,
        provider,
        model_name,
        status,
        calls,
        unmeasured_calls,
        unpriced_calls,
        cost,
        total_tokens,
        response_time_ms_sum,
        response_time_ms_count
    FROM {{tables.llmbridge_usage_by_time}}
    WHERE grain = 3600
    UNION ALL
    SELECT
        extract(epoch FROM date_bin('1 hour', greatest(called_at, '0001-01-01Z'), '0001-01-01Z'))::bigint,
        origin,
        provider,
        model_name,
        status,
        1,
        (total_tokens IS NULL AND cost_reason IS DISTINCT FROM 'not_billed')::int,
        (estimated_cost IS NULL AND coalesce(cost_reason, '') NOT IN ('not_billed', 'synthetic'))::int,
        coalesce(estimated_cost, 0),
        coalesce(total_tokens, 0),
        CASE status WHEN 'success' THEN coalesce(response_time_ms, 0) ELSE 0 END,
        (status = 'success' AND response_time_ms IS NOT NULL)::int
    FROM {{tables.llmbridge_calls}}
    WHERE lot IN (SELECT number FROM {{tables.llmbridge_lots}} WHERE NOT folded)
),
sums AS (
    SELECT
        origin,
        provider,
        model_name,
        status,
        start,
        sum(calls) AS calls,
        sum(unmeasured_calls) AS unmeasured,
        sum(unpriced_calls) AS unpriced,
        sum(cost) AS cost,
        sum(total_tokens) AS tokens,
        sum(response_time_ms_sum) AS ms,
        sum(response_time_ms_count) AS timed
    FROM cells
    GROUP BY origin, provider, model_name, status, start
)
SELECT
    origin,
    provider,
    model_name,
    status,
    calls::bigint AS call_count,
    CASE WHEN calls > unmeasured THEN tokens END AS total_tokens,
    CASE WHEN calls > unpriced THEN trim_scale(cost * 0.000000000001) END AS total_cost,
    (ms / nullif(timed, 0))::double precision AS avg_response_time,
    to_timestamp(start) AS hour,
    unpriced::bigint AS unpriced_calls,
    unmeasured::bigint AS unmeasured_calls,
    (CASE status WHEN 'success' THEN 0 ELSE calls END)::bigint AS failed_calls,
    trim_scale((CASE status WHEN 'success' THEN 0 ELSE cost END) * 0.000000000001) AS failed_cost
FROM sums;
