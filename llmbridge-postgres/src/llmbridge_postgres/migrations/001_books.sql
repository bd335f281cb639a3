-- The books. Money is whole units of 1e-12 dollar; text compares and sorts by code point; metadata is json and not
-- jsonb, so that a number keeps the text that it was written with. Views are for people.

-- What releases promise each other: the greatest `writable_from` is the number of the oldest last migration that a
-- release must ship to be allowed to write.
CREATE TABLE {{tables.llmbridge_schema}} (
    migration text COLLATE "C" PRIMARY KEY,
    writable_from integer NOT NULL
);

INSERT INTO {{tables.llmbridge_schema}} (migration, writable_from) VALUES ('001_books', 1);

-- One row. Calls before `watermark` were purged (NULL: none was), whether or not they are deleted yet. Whoever changes
-- totals locks this table.
CREATE TABLE {{tables.llmbridge_state}} (
    id integer PRIMARY KEY CHECK (id = 1),
    watermark timestamptz
);

INSERT INTO {{tables.llmbridge_state}} (id) VALUES (1);

-- Each writer marks its calls with a lot of its own; those of a lot go into the totals together, and then it is closed.
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
    error_message text COLLATE "C"
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

-- Totals of the calls of a user ('' for none) in a day, and of an origin in `grain` seconds from `start` on, in seconds
-- since 1970. `sums`, `failures` and `histograms` are JSON by provider and model: llmbridge.storage.sheets.
CREATE TABLE {{tables.llmbridge_user_totals}} (
    origin text COLLATE "C" NOT NULL,
    id_at_origin text COLLATE "C" NOT NULL,
    start bigint NOT NULL,
    sums text NOT NULL,
    failures text NOT NULL,
    histograms text NOT NULL,
    PRIMARY KEY (origin, id_at_origin, start)
);

CREATE INDEX llmbridge_user_totals_by_day ON {{tables.llmbridge_user_totals}} (start, origin, id_at_origin);

CREATE TABLE {{tables.llmbridge_totals}} (
    grain bigint NOT NULL,
    start bigint NOT NULL,
    origin text COLLATE "C" NOT NULL,
    sums text NOT NULL,
    failures text NOT NULL,
    histograms text NOT NULL,
    PRIMARY KEY (grain, start, origin)
);

-- A series reads them all: to decompress them takes longer than to read what they are longer otherwise.
ALTER TABLE {{tables.llmbridge_totals}} ALTER COLUMN histograms SET STORAGE EXTERNAL;

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
    effective_from timestamptz NOT NULL,
    input bigint,
    output bigint,
    cache_read bigint,
    cache_write bigint,
    cache_write_1h bigint,
    PRIMARY KEY (provider, model_name, effective_from)
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
    status,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cache_read_tokens,
    cache_write_tokens,
    cache_write_1h_tokens,
    reasoning_tokens,
    usage_source,
    trim_scale(estimated_cost * 0.000000000001) AS estimated_cost,
    cost_source,
    cost_reason,
    trim_scale(dollars_per_million_tokens_input_used * 0.000000000001) AS dollars_per_million_tokens_input_used,
    trim_scale(dollars_per_million_tokens_output_used * 0.000000000001) AS dollars_per_million_tokens_output_used,
    price_version,
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

-- Days that were purged come from the totals, whose `sums` are of all calls, less `failures`. A line of either is
-- [provider, model_name, calls by status or status, requests, unmeasured, unpriced, cost, total_tokens, prompt_tokens,
-- completion_tokens, timed, response_time_ms, ...], less the zeros at its end.
CREATE VIEW {{tables.usage_summary}} AS
WITH lines AS (
    SELECT origin, id_at_origin, start, 1 AS times, coalesce(line -> 2 ->> 'success', '0')::numeric AS calls, line
    FROM {{tables.llmbridge_user_totals}}, json_array_elements(sums::json) AS line
    UNION ALL
    SELECT origin, id_at_origin, start, -1 AS times, 0::numeric AS calls, line
    FROM {{tables.llmbridge_user_totals}}, json_array_elements(failures::json) AS line
),
counted AS (
    SELECT
        origin,
        id_at_origin,
        provider,
        model_name,
        (called_at AT TIME ZONE 'UTC')::date AS date,
        1::numeric AS calls,
        (total_tokens IS NOT NULL)::int::numeric AS measured,
        (estimated_cost IS NOT NULL)::int::numeric AS priced,
        total_tokens::numeric,
        estimated_cost::numeric,
        response_time_ms::numeric,
        (response_time_ms IS NOT NULL)::int::numeric AS timed
    FROM {{tables.llmbridge_calls}}
    WHERE
        status = 'success'
        AND called_at >= coalesce((SELECT watermark FROM {{tables.llmbridge_state}}), '-infinity')
    UNION ALL
    SELECT
        origin,
        nullif(id_at_origin, ''),
        line ->> 0,
        line ->> 1,
        (to_timestamp(start) AT TIME ZONE 'UTC')::date,
        calls,
        calls - times * coalesce(line ->> 4, '0')::numeric,
        calls - times * coalesce(line ->> 5, '0')::numeric,
        times * coalesce(line ->> 7, '0')::numeric,
        times * coalesce(line ->> 6, '0')::numeric,
        times * coalesce(line ->> 11, '0')::numeric,
        times * coalesce(line ->> 10, '0')::numeric
    FROM lines
    WHERE to_timestamp(start) < (SELECT watermark FROM {{tables.llmbridge_state}})
)
SELECT
    origin,
    id_at_origin,
    provider,
    model_name,
    sum(calls)::bigint AS call_count,
    CASE WHEN sum(measured) > 0 THEN sum(total_tokens) END AS total_tokens,
    CASE WHEN sum(priced) > 0 THEN trim_scale(sum(estimated_cost) * 0.000000000001) END AS total_cost,
    (sum(response_time_ms) / nullif(sum(timed), 0))::double precision AS avg_response_time,
    date
FROM counted
GROUP BY origin, id_at_origin, provider, model_name, date
HAVING sum(calls) > 0;
