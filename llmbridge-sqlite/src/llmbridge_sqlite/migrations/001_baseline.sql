-- writable-from: 1
--
-- Calls, their rollups, models and prices. Money is whole units of 1e-12 dollar, time whole microseconds since 1970 in
-- UTC, an id the 16 bytes of its UUID. Views are for people; they use nothing but what every SQLite has.

CREATE TABLE llmbridge_calls (
    -- Rises in the order of commits; calls beyond `llmbridge_state.folded` are in no rollup yet.
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    called_at INTEGER NOT NULL,
    origin TEXT NOT NULL,
    id_at_origin TEXT,
    provider TEXT NOT NULL,
    model_name TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    total_tokens INTEGER,
    cache_read_tokens INTEGER,
    cache_write_tokens INTEGER,
    cache_write_1h_tokens INTEGER,
    reasoning_tokens INTEGER,
    estimated_cost INTEGER,
    cost_reason TEXT,
    response_time_ms INTEGER,
    time_to_first_token_ms INTEGER,
    -- Buckets of successful calls, so that summing them takes no logarithm.
    response_bucket INTEGER,
    first_token_bucket INTEGER,
    error_type TEXT,
    requested_model TEXT,
    usage_source TEXT NOT NULL,
    cost_source TEXT,
    dollars_per_million_tokens_input_used INTEGER,
    dollars_per_million_tokens_output_used INTEGER,
    price_version TEXT,
    previous_cost INTEGER,
    previous_cost_reason TEXT,
    repriced_at INTEGER,
    stream INTEGER NOT NULL,
    finish_reason TEXT,
    response_id TEXT,
    group_id BLOB,
    temperature REAL,
    max_tokens INTEGER,
    tools_used TEXT,
    system_prompt_hash TEXT,
    metadata TEXT,
    error_message TEXT,
    -- Further counts by unit and the terms of the price that the answer told, as JSON, and the factor of list prices in
    -- units of 1e-12.
    usage_details TEXT,
    price_context TEXT,
    response_model TEXT,
    price_factor INTEGER
) STRICT;

CREATE INDEX llmbridge_calls_by_time ON llmbridge_calls (called_at, id);

CREATE INDEX llmbridge_calls_by_user ON llmbridge_calls (origin, id_at_origin, called_at);

-- One row. Calls up to the number `folded` are in the rollups; those before `watermark` were purged (NULL: none was),
-- whether or not they are deleted yet. `identity` tells this database from every other one, wherever it is moved; all
-- releases read it.
CREATE TABLE llmbridge_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    identity TEXT NOT NULL,
    folded INTEGER NOT NULL,
    watermark INTEGER
) STRICT;

INSERT INTO llmbridge_state (id, identity, folded) VALUES (1, llmbridge_new_identity(), 0);

-- Rollups: sums of calls by user and UTC day, and by `grain` seconds from `start` on. `day` and `start` are seconds since
-- 1970; a call without a user has the user ''. Keys begin with the time, so that new rows are appended.
-- `cost_rest` is from 0 to 1 dollar in units of 1e-12; a column NAME_high counts multiples of 2^32 beyond NAME, which is
-- from 0 to 2^32 - 1. A histogram is `BUCKET` or `BUCKET:CALLS` with commas between: llmbridge.storage.toolkit.rollups.
CREATE TABLE llmbridge_usage_by_user (
    day INTEGER NOT NULL,
    origin TEXT NOT NULL,
    id_at_origin TEXT NOT NULL,
    provider TEXT NOT NULL,
    model_name TEXT NOT NULL,
    status TEXT NOT NULL,
    calls INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,
    unmeasured_calls INTEGER NOT NULL DEFAULT 0,
    unpriced_calls INTEGER NOT NULL DEFAULT 0,
    response_time_ms_count INTEGER NOT NULL DEFAULT 0,
    cost_dollars INTEGER NOT NULL DEFAULT 0,
    cost_rest INTEGER NOT NULL DEFAULT 0,
    total_tokens INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    response_time_ms_sum INTEGER NOT NULL DEFAULT 0,
    total_tokens_high INTEGER NOT NULL DEFAULT 0,
    prompt_tokens_high INTEGER NOT NULL DEFAULT 0,
    completion_tokens_high INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens_high INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens_high INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens_high INTEGER NOT NULL DEFAULT 0,
    response_time_ms_sum_high INTEGER NOT NULL DEFAULT 0,
    -- Calls whose tokens were estimated, which no release writes yet.
    estimated_calls INTEGER NOT NULL DEFAULT 0,
    estimated_cost_dollars INTEGER NOT NULL DEFAULT 0,
    estimated_cost_rest INTEGER NOT NULL DEFAULT 0,
    estimated_tokens INTEGER NOT NULL DEFAULT 0,
    estimated_tokens_high INTEGER NOT NULL DEFAULT 0,
    response_time_histogram TEXT,
    first_token_histogram TEXT,
    PRIMARY KEY (day, origin, id_at_origin, provider, model_name, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE llmbridge_usage_by_time (
    grain INTEGER NOT NULL,
    start INTEGER NOT NULL,
    origin TEXT NOT NULL,
    provider TEXT NOT NULL,
    model_name TEXT NOT NULL,
    status TEXT NOT NULL,
    calls INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,
    unmeasured_calls INTEGER NOT NULL DEFAULT 0,
    unpriced_calls INTEGER NOT NULL DEFAULT 0,
    response_time_ms_count INTEGER NOT NULL DEFAULT 0,
    cost_dollars INTEGER NOT NULL DEFAULT 0,
    cost_rest INTEGER NOT NULL DEFAULT 0,
    total_tokens INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    response_time_ms_sum INTEGER NOT NULL DEFAULT 0,
    total_tokens_high INTEGER NOT NULL DEFAULT 0,
    prompt_tokens_high INTEGER NOT NULL DEFAULT 0,
    completion_tokens_high INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens_high INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens_high INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens_high INTEGER NOT NULL DEFAULT 0,
    response_time_ms_sum_high INTEGER NOT NULL DEFAULT 0,
    -- Calls whose tokens were estimated, which no release writes yet.
    estimated_calls INTEGER NOT NULL DEFAULT 0,
    estimated_cost_dollars INTEGER NOT NULL DEFAULT 0,
    estimated_cost_rest INTEGER NOT NULL DEFAULT 0,
    estimated_tokens INTEGER NOT NULL DEFAULT 0,
    estimated_tokens_high INTEGER NOT NULL DEFAULT 0,
    response_time_histogram TEXT,
    first_token_histogram TEXT,
    PRIMARY KEY (grain, start, origin, provider, model_name, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE llmbridge_models (
    provider TEXT NOT NULL,
    model_name TEXT NOT NULL,
    id INTEGER,
    display_name TEXT,
    description TEXT,
    max_context INTEGER,
    max_output_tokens INTEGER,
    supports_vision INTEGER NOT NULL,
    supports_function_calling INTEGER NOT NULL,
    supports_json_mode INTEGER NOT NULL,
    supports_parallel_tool_calls INTEGER NOT NULL,
    tool_call_format TEXT,
    dollars_per_million_tokens_input INTEGER,
    dollars_per_million_tokens_output INTEGER,
    source TEXT NOT NULL,
    inactive_from INTEGER,
    created_at INTEGER,
    updated_at INTEGER,
    PRIMARY KEY (provider, model_name)
) STRICT;

CREATE TABLE llmbridge_prices (
    provider TEXT NOT NULL,
    model_name TEXT NOT NULL,
    -- The context of prices for which this one holds, as canonical JSON.
    context TEXT NOT NULL DEFAULT '{}',
    effective_from INTEGER NOT NULL,
    input INTEGER,
    output INTEGER,
    cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER,
    -- Rates of further units as JSON, and a factor of list prices, both in units of 1e-12.
    rates TEXT,
    factor INTEGER,
    PRIMARY KEY (provider, model_name, context, effective_from)
) STRICT;

CREATE VIEW call_log AS
WITH readable AS (
    SELECT
        *,
        lower(hex(id)) AS id_digits,
        lower(hex(group_id)) AS group_digits,
        ((called_at % 1000000) + 1000000) % 1000000 AS microseconds,
        ((repriced_at % 1000000) + 1000000) % 1000000 AS repriced_microseconds
    FROM llmbridge_calls
    WHERE called_at >= (SELECT coalesce(watermark, -9223372036854775808) FROM llmbridge_state)
)
SELECT
    strftime('%Y-%m-%dT%H:%M:%S', (called_at - microseconds) / 1000000, 'unixepoch')
        || printf('.%06dZ', microseconds) AS called_at,
    substr(id_digits, 1, 8) || '-' || substr(id_digits, 9, 4) || '-' || substr(id_digits, 13, 4) || '-'
        || substr(id_digits, 17, 4) || '-' || substr(id_digits, 21) AS id,
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
    CASE WHEN estimated_cost < 0 THEN '-' ELSE '' END
        || rtrim(rtrim((abs(estimated_cost) / 1000000000000) || '.'
        || printf('%012d', abs(estimated_cost) % 1000000000000), '0'), '.') AS estimated_cost,
    cost_source,
    cost_reason,
    CASE WHEN dollars_per_million_tokens_input_used < 0 THEN '-' ELSE '' END
        || rtrim(rtrim((abs(dollars_per_million_tokens_input_used) / 1000000000000) || '.'
        || printf('%012d', abs(dollars_per_million_tokens_input_used) % 1000000000000), '0'), '.') AS dollars_per_million_tokens_input_used,
    CASE WHEN dollars_per_million_tokens_output_used < 0 THEN '-' ELSE '' END
        || rtrim(rtrim((abs(dollars_per_million_tokens_output_used) / 1000000000000) || '.'
        || printf('%012d', abs(dollars_per_million_tokens_output_used) % 1000000000000), '0'), '.') AS dollars_per_million_tokens_output_used,
    price_context,
    price_version,
    CASE WHEN price_factor < 0 THEN '-' ELSE '' END
        || rtrim(rtrim((abs(price_factor) / 1000000000000) || '.'
        || printf('%012d', abs(price_factor) % 1000000000000), '0'), '.') AS price_factor,
    CASE WHEN previous_cost < 0 THEN '-' ELSE '' END
        || rtrim(rtrim((abs(previous_cost) / 1000000000000) || '.'
        || printf('%012d', abs(previous_cost) % 1000000000000), '0'), '.') AS previous_cost,
    previous_cost_reason,
    strftime('%Y-%m-%dT%H:%M:%S', (repriced_at - repriced_microseconds) / 1000000, 'unixepoch')
        || printf('.%06dZ', repriced_microseconds) AS repriced_at,
    response_time_ms,
    time_to_first_token_ms,
    stream,
    finish_reason,
    response_id,
    attempt,
    CASE WHEN group_id IS NOT NULL THEN
        substr(group_digits, 1, 8) || '-' || substr(group_digits, 9, 4) || '-' || substr(group_digits, 13, 4) || '-'
        || substr(group_digits, 17, 4) || '-' || substr(group_digits, 21)
    END AS group_id,
    temperature,
    max_tokens,
    tools_used,
    system_prompt_hash,
    error_type,
    error_message,
    metadata
FROM readable;

-- Sums of the rollups and of the calls that are not folded yet. Cost is put together as exact decimal text from dollars
-- and the rest of one, tokens from billions and the rest, so that no sum passes 64 bits. A credit of half a dollar is
-- -1 dollar and a rest of a half.
CREATE VIEW usage_summary AS
WITH cells AS (
    SELECT
        day AS start,
        origin,
        id_at_origin,
        provider,
        model_name,
        status = 'success' AS succeeded,
        status <> 'success' AS failed,
        calls,
        unmeasured_calls,
        unpriced_calls,
        cost_dollars,
        cost_rest,
        total_tokens_high,
        total_tokens,
        response_time_ms_sum_high * 4294967296.0 + response_time_ms_sum AS response_time_ms_sum,
        response_time_ms_count
    FROM llmbridge_usage_by_user
    UNION ALL
    SELECT
        (called_at - ((called_at % 86400000000) + 86400000000) % 86400000000) / 1000000,
        origin,
        coalesce(id_at_origin, ''),
        provider,
        model_name,
        status = 'success',
        status <> 'success',
        1,
        total_tokens IS NULL AND cost_reason IS NOT 'not_billed',
        estimated_cost IS NULL AND cost_reason IS NOT 'not_billed' AND cost_reason IS NOT 'synthetic',
        coalesce(estimated_cost / 1000000000000 - (estimated_cost % 1000000000000 < 0), 0),
        coalesce(estimated_cost % 1000000000000 + 1000000000000 * (estimated_cost % 1000000000000 < 0), 0),
        coalesce(total_tokens >> 32, 0),
        coalesce(total_tokens & 4294967295, 0),
        CASE status WHEN 'success' THEN coalesce(response_time_ms, 0) ELSE 0 END,
        status = 'success' AND response_time_ms IS NOT NULL
    FROM llmbridge_calls
    WHERE number > (SELECT folded FROM llmbridge_state)
),
sums AS (
    SELECT
        origin,
        id_at_origin,
        provider,
        model_name,
        start,
        SUM(succeeded * calls) AS calls,
        SUM(succeeded * unmeasured_calls) AS unmeasured,
        SUM(succeeded * unpriced_calls) AS unpriced,
        SUM(succeeded * cost_dollars) + SUM(succeeded * cost_rest) / 1000000000000 AS dollars,
        SUM(succeeded * cost_rest) % 1000000000000 AS rest,
        SUM(succeeded * total_tokens_high) AS tokens_high,
        SUM(succeeded * total_tokens) AS tokens_low,
        TOTAL(succeeded * response_time_ms_sum) / nullif(SUM(succeeded * response_time_ms_count), 0) AS avg_response_time,
        SUM(failed * calls) AS failed_calls,
        SUM(failed * cost_dollars) + SUM(failed * cost_rest) / 1000000000000 AS failed_dollars,
        SUM(failed * cost_rest) % 1000000000000 AS failed_rest
    FROM cells
    GROUP BY origin, id_at_origin, provider, model_name, start
),
billions AS (
    SELECT
        *,
        4 * tokens_high + (294967296 * tokens_high + tokens_low) / 1000000000 AS tokens_billions,
        (294967296 * tokens_high + tokens_low) % 1000000000 AS tokens_rest
    FROM sums
)
SELECT
    origin,
    nullif(id_at_origin, '') AS id_at_origin,
    provider,
    model_name,
    calls AS call_count,
    CASE
        WHEN calls = unmeasured THEN NULL
        WHEN tokens_billions < 9000000000 THEN tokens_billions * 1000000000 + tokens_rest
        ELSE tokens_billions || printf('%09d', tokens_rest)
    END AS total_tokens,
    CASE
        WHEN calls = unpriced THEN NULL
        WHEN dollars < 0 AND rest > 0 THEN '-' || rtrim((-dollars - 1) || '.' || printf('%012d', 1000000000000 - rest), '0')
        ELSE rtrim(rtrim(dollars || '.' || printf('%012d', rest), '0'), '.')
    END AS total_cost,
    avg_response_time,
    date(start, 'unixepoch') AS date,
    unpriced AS unpriced_calls,
    unmeasured AS unmeasured_calls,
    failed_calls,
    CASE
        WHEN failed_dollars < 0 AND failed_rest > 0
            THEN '-' || rtrim((-failed_dollars - 1) || '.' || printf('%012d', 1000000000000 - failed_rest), '0')
        ELSE rtrim(rtrim(failed_dollars || '.' || printf('%012d', failed_rest), '0'), '.')
    END AS failed_cost
FROM billions;

-- All calls by hour and status, as `usage_summary` has them by day and user.
CREATE VIEW usage_hours AS
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
        cost_dollars,
        cost_rest,
        total_tokens_high,
        total_tokens,
        response_time_ms_sum_high * 4294967296.0 + response_time_ms_sum AS response_time_ms_sum,
        response_time_ms_count
    FROM llmbridge_usage_by_time
    WHERE grain = 3600
    UNION ALL
    SELECT
        (called_at - ((called_at % 3600000000) + 3600000000) % 3600000000) / 1000000,
        origin,
        provider,
        model_name,
        status,
        1,
        total_tokens IS NULL AND cost_reason IS NOT 'not_billed',
        estimated_cost IS NULL AND cost_reason IS NOT 'not_billed' AND cost_reason IS NOT 'synthetic',
        coalesce(estimated_cost / 1000000000000 - (estimated_cost % 1000000000000 < 0), 0),
        coalesce(estimated_cost % 1000000000000 + 1000000000000 * (estimated_cost % 1000000000000 < 0), 0),
        coalesce(total_tokens >> 32, 0),
        coalesce(total_tokens & 4294967295, 0),
        CASE status WHEN 'success' THEN coalesce(response_time_ms, 0) ELSE 0 END,
        status = 'success' AND response_time_ms IS NOT NULL
    FROM llmbridge_calls
    WHERE number > (SELECT folded FROM llmbridge_state)
),
sums AS (
    SELECT
        origin,
        provider,
        model_name,
        status,
        start,
        SUM(calls) AS calls,
        SUM(unmeasured_calls) AS unmeasured,
        SUM(unpriced_calls) AS unpriced,
        SUM(cost_dollars) + SUM(cost_rest) / 1000000000000 AS dollars,
        SUM(cost_rest) % 1000000000000 AS rest,
        SUM(total_tokens_high) AS tokens_high,
        SUM(total_tokens) AS tokens_low,
        TOTAL(response_time_ms_sum) / nullif(SUM(response_time_ms_count), 0) AS avg_response_time,
        SUM((status <> 'success') * calls) AS failed_calls,
        SUM((status <> 'success') * cost_dollars) + SUM((status <> 'success') * cost_rest) / 1000000000000 AS failed_dollars,
        SUM((status <> 'success') * cost_rest) % 1000000000000 AS failed_rest
    FROM cells
    GROUP BY origin, provider, model_name, status, start
),
billions AS (
    SELECT
        *,
        4 * tokens_high + (294967296 * tokens_high + tokens_low) / 1000000000 AS tokens_billions,
        (294967296 * tokens_high + tokens_low) % 1000000000 AS tokens_rest
    FROM sums
)
SELECT
    origin,
    provider,
    model_name,
    status,
    calls AS call_count,
    CASE
        WHEN calls = unmeasured THEN NULL
        WHEN tokens_billions < 9000000000 THEN tokens_billions * 1000000000 + tokens_rest
        ELSE tokens_billions || printf('%09d', tokens_rest)
    END AS total_tokens,
    CASE
        WHEN calls = unpriced THEN NULL
        WHEN dollars < 0 AND rest > 0 THEN '-' || rtrim((-dollars - 1) || '.' || printf('%012d', 1000000000000 - rest), '0')
        ELSE rtrim(rtrim(dollars || '.' || printf('%012d', rest), '0'), '.')
    END AS total_cost,
    avg_response_time,
    strftime('%Y-%m-%dT%H:00:00Z', start, 'unixepoch') AS hour,
    unpriced AS unpriced_calls,
    unmeasured AS unmeasured_calls,
    failed_calls,
    CASE
        WHEN failed_dollars < 0 AND failed_rest > 0
            THEN '-' || rtrim((-failed_dollars - 1) || '.' || printf('%012d', 1000000000000 - failed_rest), '0')
        ELSE rtrim(rtrim(failed_dollars || '.' || printf('%012d', failed_rest), '0'), '.')
    END AS failed_cost
FROM billions;
