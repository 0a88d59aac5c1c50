-- What each serving process last knew of each member that it asked. Rows of a process that ended stay until a later
-- one sweeps them; whoever reads takes only what was confirmed lately.
CREATE TABLE site_health (
    emetteur          text NOT NULL,
    server            text NOT NULL,
    state             text NOT NULL CHECK (state IN ('closed', 'half-open', 'open')),
    failures_in_a_row integer NOT NULL CHECK (failures_in_a_row >= 0),
    -- Since when it answers, or fails: opening and probing of a breaker do not move it.
    since             timestamptz NOT NULL,
    last_success_at   timestamptz,
    last_failure_at   timestamptz,
    last_failure      text NOT NULL,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (emetteur, server)
);
