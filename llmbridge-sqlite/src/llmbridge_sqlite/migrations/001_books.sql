-- writable-from: 1
--
-- The books. Money is whole units of 1e-12 dollar, time whole microseconds since 1970 in UTC, an id the 16 bytes
-- of its UUID. Views are for people; they use nothing but what every SQLite has, its functions for JSON included.

CREATE TABLE llmbridge_calls (
    -- Rises in the order of commits; what is beyond `llmbridge_state.folded` is in no total yet.
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
    error_message TEXT
) STRICT;

CREATE INDEX llmbridge_calls_by_time ON llmbridge_calls (called_at, id);

CREATE INDEX llmbridge_calls_by_user ON llmbridge_calls (origin, id_at_origin, called_at);

-- One row. Calls up to the number `folded` are in the totals; those before `watermark` were purged (NULL: none was),
-- whether or not they are deleted yet.
CREATE TABLE llmbridge_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    folded INTEGER NOT NULL,
    watermark INTEGER
) STRICT;

INSERT INTO llmbridge_state (id, folded) VALUES (1, 0);

-- Totals of the calls of a user ('' for none) in a day, and of an origin in `grain` seconds from `start` on, in seconds
-- since 1970. `sums`, `failures` and `histograms` are JSON by provider and model: llmbridge.storage.sheets.
CREATE TABLE llmbridge_user_totals (
    origin TEXT NOT NULL,
    id_at_origin TEXT NOT NULL,
    start INTEGER NOT NULL,
    sums TEXT NOT NULL,
    failures TEXT NOT NULL,
    histograms TEXT NOT NULL,
    PRIMARY KEY (origin, id_at_origin, start)
) STRICT, WITHOUT ROWID;

CREATE INDEX llmbridge_user_totals_by_day ON llmbridge_user_totals (start, origin, id_at_origin);

CREATE TABLE llmbridge_totals (
    grain INTEGER NOT NULL,
    start INTEGER NOT NULL,
    origin TEXT NOT NULL,
    sums TEXT NOT NULL,
    failures TEXT NOT NULL,
    histograms TEXT NOT NULL,
    PRIMARY KEY (grain, start, origin)
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
    effective_from INTEGER NOT NULL,
    input INTEGER,
    output INTEGER,
    cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER,
    PRIMARY KEY (provider, model_name, effective_from)
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
    status,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cache_read_tokens,
    cache_write_tokens,
    cache_write_1h_tokens,
    reasoning_tokens,
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
    price_version,
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

-- Sums are made in parts that cannot overflow and put together as decimal text: cost from dollars, millionths of a
-- dollar and units, tokens from billions and the rest, each carried into the next by division that rounds down, so that
-- credits are exact as well. Days that were purged come from the totals, whose `sums` are of all calls, less `failures`.
-- A line of either is [provider, model_name, calls by status or status, requests, unmeasured, unpriced, cost,
-- total_tokens, prompt_tokens, completion_tokens, timed, response_time_ms, ...], less the zeros at its end. Its cost and
-- its tokens are cut as text, `[cost,tokens]`: they may be beyond 64 bits, which SQLite would read as a REAL.
CREATE VIEW usage_summary AS
WITH lines AS (
    SELECT origin, id_at_origin, start, 1 AS times, json_extract(line.value, '$[2].success') AS calls, line.value AS line
    FROM llmbridge_user_totals, json_each(sums) AS line
    UNION ALL
    SELECT origin, id_at_origin, start, -1 AS times, 0 AS calls, line.value AS line
    FROM llmbridge_user_totals, json_each(failures) AS line
),
purged AS (
    SELECT
        *,
        replace(json_extract(line, '$[6]', '$[7]'), 'null', '0') AS numbers
    FROM lines
    WHERE start < (SELECT watermark / 1000000 FROM llmbridge_state)
),
digits AS (
    SELECT
        *,
        CASE WHEN numbers LIKE '[-%' THEN -times ELSE times END AS sign,
        '000000000' || rtrim(substr(numbers, instr(numbers, ',') + 1), ']') AS tokens,
        '000000000000' || ltrim(substr(numbers, 2, instr(numbers, ',') - 2), '-') AS cost
    FROM purged
),
counted AS (
    SELECT
        origin,
        id_at_origin,
        provider,
        model_name,
        (called_at - ((called_at % 86400000000) + 86400000000) % 86400000000) / 1000000 AS start,
        1 AS calls,
        total_tokens IS NOT NULL AS measured,
        estimated_cost IS NOT NULL AS priced,
        total_tokens / 1000000000 AS tokens_billions,
        total_tokens % 1000000000 AS tokens_rest,
        estimated_cost / 1000000000000 AS dollars,
        estimated_cost / 1000000 % 1000000 AS millionths,
        estimated_cost % 1000000 AS units,
        response_time_ms,
        response_time_ms IS NOT NULL AS timed
    FROM llmbridge_calls
    WHERE
        status = 'success'
        AND called_at >= (SELECT coalesce(watermark, -9223372036854775808) FROM llmbridge_state)
    UNION ALL
    SELECT
        origin,
        nullif(id_at_origin, ''),
        json_extract(line, '$[0]'),
        json_extract(line, '$[1]'),
        start,
        coalesce(calls, 0),
        coalesce(calls, 0) - times * coalesce(json_extract(line, '$[4]'), 0),
        coalesce(calls, 0) - times * coalesce(json_extract(line, '$[5]'), 0),
        times * CAST(substr(tokens, 1, length(tokens) - 9) AS INTEGER),
        times * CAST(substr(tokens, -9) AS INTEGER),
        sign * CAST(substr(cost, 1, length(cost) - 12) AS INTEGER),
        sign * CAST(substr(cost, -12, 6) AS INTEGER),
        sign * CAST(substr(cost, -6) AS INTEGER),
        times * json_extract(line, '$[11]'),
        times * json_extract(line, '$[10]')
    FROM digits
),
parts AS (
    SELECT
        origin,
        id_at_origin,
        provider,
        model_name,
        date(start, 'unixepoch') AS date,
        SUM(calls) AS call_count,
        SUM(measured) AS measured,
        SUM(priced) AS priced,
        SUM(tokens_billions) AS billions,
        SUM(tokens_rest) AS rest,
        SUM(dollars) AS dollars,
        SUM(millionths) AS millionths,
        SUM(units) AS units,
        TOTAL(response_time_ms) / nullif(TOTAL(timed), 0) AS avg_response_time
    FROM counted
    GROUP BY origin, id_at_origin, provider, model_name, 5
    HAVING SUM(calls) > 0
),
carried_units AS (
    SELECT
        *,
        ((units % 1000000) + 1000000) % 1000000 AS units_kept,
        ((rest % 1000000000) + 1000000000) % 1000000000 AS tokens_rest
    FROM parts
),
carried_millionths AS (
    SELECT *, millionths + (units - units_kept) / 1000000 AS millionths_made FROM carried_units
),
kept AS (
    SELECT *, ((millionths_made % 1000000) + 1000000) % 1000000 AS millionths_kept FROM carried_millionths
),
carried AS (
    SELECT
        *,
        billions + (rest - tokens_rest) / 1000000000 AS tokens_billions,
        dollars + (millionths_made - millionths_kept) / 1000000 AS whole,
        millionths_kept * 1000000 + units_kept AS fraction
    FROM kept
)
SELECT
    origin,
    id_at_origin,
    provider,
    model_name,
    call_count,
    CASE
        WHEN measured <= 0 THEN NULL
        WHEN tokens_billions BETWEEN -9000000000 AND 9000000000 THEN tokens_billions * 1000000000 + tokens_rest
        ELSE tokens_billions || printf('%09d', tokens_rest)
    END AS total_tokens,
    CASE
        WHEN priced <= 0 THEN NULL
        WHEN whole < 0 AND fraction > 0
            THEN '-' || rtrim((-whole - 1) || '.' || printf('%012d', 1000000000000 - fraction), '0')
        ELSE rtrim(rtrim(whole || '.' || printf('%012d', fraction), '0'), '.')
    END AS total_cost,
    avg_response_time,
    date
FROM carried;
