"""The rules that a PostgreSQL database enforces on whoever writes, as triggers.

The legal moves of each lifecycle stand in a table, filled from the lifecycle, none of them out of a
final status; a trigger compares every write with it. No status word stands in any statement here.

Each table has one function for the rows that are to be written, and each function asks as little
as it can: all of them run inside of every commit. A move that is legal is counted by whatever found
it so. What comes and goes is counted after the row, as a row that `ON CONFLICT DO NOTHING` passes
over has no such moment.
"""

from __future__ import annotations

from typing import Final

RULES: Final = """
CREATE FUNCTION {s}.session_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF NOT EXISTS (
            SELECT 1 FROM {s}.lifecycle_status
            WHERE lifecycle = OLD.lifecycle AND status = OLD.status AND is_final
        ) THEN
            RAISE EXCEPTION 'session_fsm: only what has ended may be removed'
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NOT EXISTS (
            SELECT 1 FROM {s}.lifecycle_status
            WHERE lifecycle = NEW.lifecycle AND status = NEW.status AND is_initial
        ) THEN
            RAISE EXCEPTION 'session_fsm: a session begins in the initial status'
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.session_id IS DISTINCT FROM OLD.session_id
        OR NEW.lifecycle IS DISTINCT FROM OLD.lifecycle
    THEN
        RAISE EXCEPTION 'session_fsm: id and lifecycle never change'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.token IS NULL OR NEW.token < OLD.token THEN
        RAISE EXCEPTION 'session_fsm: a fencing token never falls'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.revision = OLD.revision AND NEW.status = OLD.status AND NEW.state = OLD.state
        AND NEW.digest = OLD.digest AND NEW.recovery = OLD.recovery
        AND NEW.deadline_at IS NOT DISTINCT FROM OLD.deadline_at
        AND NEW.ended_at IS NOT DISTINCT FROM OLD.ended_at
    THEN
        RETURN NEW;  -- whose session it is changes without a step
    END IF;
    IF NEW.revision IS DISTINCT FROM OLD.revision + 1 THEN
        RAISE EXCEPTION 'session_fsm: each step raises the revision by one'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status IS NOT DISTINCT FROM OLD.status THEN
        IF EXISTS (
            SELECT 1 FROM {s}.lifecycle_status
            WHERE lifecycle = OLD.lifecycle AND status = OLD.status AND NOT is_final
        ) THEN
            RETURN NEW;
        END IF;
    ELSIF EXISTS (
        SELECT 1 FROM {s}.legal_move
        WHERE lifecycle = OLD.lifecycle AND source = OLD.status AND target = NEW.status
    ) THEN
        INSERT INTO {s}.session_count (lifecycle, status, sessions)
        VALUES (OLD.lifecycle, OLD.status, -1), (NEW.lifecycle, NEW.status, 1);
        RETURN NEW;
    END IF;
    IF EXISTS (
        SELECT 1 FROM {s}.lifecycle_status
        WHERE lifecycle = OLD.lifecycle AND status = OLD.status AND NOT is_final
    ) THEN
        RAISE EXCEPTION 'session_fsm: no row of the table has this move'
            USING ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION 'session_fsm: a final status is final' USING ERRCODE = 'check_violation';
END
$$;
CREATE TRIGGER session_rules BEFORE INSERT OR UPDATE OR DELETE ON {s}.session
    FOR EACH ROW EXECUTE FUNCTION {s}.session_rules();

CREATE FUNCTION {s}.session_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO {s}.session_count (lifecycle, status, sessions)
        VALUES (NEW.lifecycle, NEW.status, 1);
    ELSE
        INSERT INTO {s}.session_count (lifecycle, status, sessions)
        VALUES (OLD.lifecycle, OLD.status, -1);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER session_counted AFTER INSERT OR DELETE ON {s}.session
    FOR EACH ROW EXECUTE FUNCTION {s}.session_counted();

CREATE FUNCTION {s}.session_takes_along() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {s}.session_item WHERE session_id = OLD.session_id;
    DELETE FROM {s}.session_item_version WHERE session_id = OLD.session_id;
    DELETE FROM {s}.session_checkpoint WHERE session_id = OLD.session_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER session_takes_along AFTER DELETE ON {s}.session
    FOR EACH ROW EXECUTE FUNCTION {s}.session_takes_along();

CREATE FUNCTION {s}.session_event_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        RAISE EXCEPTION 'session_fsm: an event gets its position once it is committed'
            USING ERRCODE = 'check_violation';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.position IS NOT NULL OR NEW.position IS NULL
            OR (NEW.seq, NEW.session_id, NEW.revision, NEW.at, NEW.body, NEW.digest,
                NEW.operation_id)
            IS DISTINCT FROM (OLD.seq, OLD.session_id, OLD.revision, OLD.at, OLD.body, OLD.digest,
                OLD.operation_id)
        THEN
            RAISE EXCEPTION 'session_fsm: an event never changes'
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT 1 FROM {s}.session WHERE session_id = OLD.session_id) AND NOT EXISTS (
        SELECT 1 FROM {s}.session_checkpoint
        WHERE session_id = OLD.session_id AND revision >= OLD.revision
    ) THEN
        RAISE EXCEPTION 'session_fsm: the events of a session stay with it'
            USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.position IS NULL THEN
        RAISE EXCEPTION 'session_fsm: an event that was not told yet stays'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER session_event_rules BEFORE UPDATE OR DELETE ON {s}.session_event
    FOR EACH ROW EXECUTE FUNCTION {s}.session_event_rules();
CREATE TRIGGER session_event_begins BEFORE INSERT ON {s}.session_event
    FOR EACH ROW WHEN (NEW.position IS NOT NULL) EXECUTE FUNCTION {s}.session_event_rules();

CREATE FUNCTION {s}.session_checkpoint_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT 1 FROM {s}.session WHERE session_id = OLD.session_id) THEN
            RAISE EXCEPTION 'session_fsm: the checkpoint of a session stays with it'
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF NEW.session_id IS DISTINCT FROM OLD.session_id
            OR (NEW.revision > OLD.revision) IS NOT TRUE
        THEN
            RAISE EXCEPTION 'session_fsm: a checkpoint is replaced by a later one'
                USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    IF NOT EXISTS (
        SELECT 1 FROM {s}.session JOIN {s}.session_event USING (session_id)
        WHERE session_id = NEW.session_id AND session_event.revision = NEW.revision
            AND session.revision > NEW.revision
    ) THEN
        RAISE EXCEPTION 'session_fsm: a checkpoint stands for events, the last stays'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER session_checkpoint_rules BEFORE INSERT OR UPDATE OR DELETE ON {s}.session_checkpoint
    FOR EACH ROW EXECUTE FUNCTION {s}.session_checkpoint_rules();

CREATE FUNCTION {s}.session_item_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'session_fsm: an item is replaced, with another version'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NOT EXISTS (
        SELECT 1 FROM {s}.session JOIN {s}.lifecycle_status USING (lifecycle, status)
        WHERE session_id = NEW.session_id AND lifecycle = NEW.lifecycle AND NOT is_final
    ) OR NOT EXISTS (
        SELECT 1 FROM {s}.session_item_version
        WHERE session_id = NEW.session_id AND version = NEW.version
    ) THEN
        RAISE EXCEPTION 'session_fsm: an item is of a session that has not ended'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER session_item_rules BEFORE INSERT OR UPDATE ON {s}.session_item
    FOR EACH ROW EXECUTE FUNCTION {s}.session_item_rules();

CREATE FUNCTION {s}.session_item_version_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT 1 FROM {s}.session WHERE session_id = OLD.session_id) THEN
            RAISE EXCEPTION 'session_fsm: no version is given twice'
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN OLD;
    END IF;
    -- What removes items gives no version, and is known by its operation all the same.
    IF TG_OP = 'INSERT' THEN
        IF (NEW.version IN (0, 1)) IS NOT TRUE THEN
            RAISE EXCEPTION 'session_fsm: the versions of items begin at 1'
                USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.session_id IS DISTINCT FROM OLD.session_id
        OR (NEW.version IN (OLD.version, OLD.version + 1)) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'session_fsm: each item raises the version by one'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER session_item_version_rules
    BEFORE INSERT OR UPDATE OR DELETE ON {s}.session_item_version
    FOR EACH ROW EXECUTE FUNCTION {s}.session_item_version_rules();

CREATE FUNCTION {s}.feed_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE'
        OR (NEW.newest >= OLD.newest AND NEW.removed >= OLD.removed) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'session_fsm: no position is given twice'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER feed_rules BEFORE UPDATE OR DELETE ON {s}.feed
    FOR EACH ROW EXECUTE FUNCTION {s}.feed_rules();

CREATE FUNCTION {s}.nothing_is_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'session_fsm: sessions are removed one by one, once they have ended'
        USING ERRCODE = 'check_violation';
END
$$;
"""
KEPT: Final = (
    "session",
    "session_event",
    "session_checkpoint",
    "session_count",
    "session_item",
    "session_item_version",
    "feed",
    "feed_removed",
)
"""The tables that nobody empties at one go."""


def rules() -> str:
    """Return all that makes the rules, in one script."""
    return RULES + "".join(
        f"CREATE TRIGGER {table}_is_not_truncated BEFORE TRUNCATE ON {{s}}.{table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION {s}.nothing_is_truncated();\n"
        for table in KEPT
    )
