"""The scripts of the queue in Redis, in Lua. `RedisQueue` says what the keys hold, and runs each as a whole."""

from __future__ import annotations

_COMMON = """
local stream, messages, attempts, holders, delayed, dead = unpack(KEYS)
local group, consumer = 'martlet', 'martlet'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function wait(id, delay)
    if delay > 0 then
        redis.call('ZADD', delayed, now + delay, id)
    else
        redis.call('XADD', stream, '*', 'id', id)
    end
end

-- Ends the delivery of an entry; says whether it was one.
local function release(entry)
    local released = redis.call('XACK', stream, group, entry) == 1
    redis.call('XDEL', stream, entry)
    return released
end

local function bury(id)
    redis.call('HDEL', holders, id)
    redis.call('ZADD', dead, now, id)
end

local function forget(id)
    redis.call('HDEL', messages, id)
    redis.call('HDEL', attempts, id)
    redis.call('HDEL', holders, id)
end

-- Whether somebody else has taken the message since.
local function lost(id, handle)
    local holder = redis.call('HGET', holders, id)
    return holder and holder ~= handle
end

local function entry_of(handle)
    return string.match(handle, '^[^/]*')
end

local function hold(entry, idle)
    return #redis.call('XCLAIM', stream, group, consumer, 0, entry, 'IDLE', idle, 'JUSTID') == 1
end

-- Made where it is needed, for Redis may have been emptied since.
local function make_group()
    redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
end
"""

_PUT = """
local id, content, delay, remembered, most =
    ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local name = KEYS[7]
if name then
    local known = redis.call('GET', name)
    if known then
        return known
    end
end
if redis.call('HEXISTS', messages, id) == 1 then
    return id
end
if most >= 0 and redis.call('XLEN', stream) + redis.call('ZCARD', delayed) >= most then
    return false
end
if name then
    redis.call('SET', name, id, 'PX', remembered)
end
redis.call('HSET', messages, id, content)
wait(id, delay)
return id
"""

_TAKE = """
local n, idle, longest, most, cursor = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local taken = {}

local function deliver(entry, id)
    local content = redis.call('HGET', messages, id)
    if not content then
        release(entry)
    elseif tonumber(redis.call('HGET', attempts, id) or 0) >= most then
        release(entry)
        bury(id)
    else
        local attempt = redis.call('HINCRBY', attempts, id, 1)
        local handle = entry .. '/' .. attempt
        redis.call('HSET', holders, id, handle)
        hold(entry, idle)
        table.insert(taken, {id, content, attempt, handle})
    end
end

make_group()
for _, id in ipairs(redis.call('ZRANGE', delayed, '-inf', now, 'BYSCORE', 'LIMIT', 0, 1000)) do
    redis.call('ZREM', delayed, id)
    wait(id, 0)
end
-- What is held, around from where the last look ended; only some of it, for it may be much.
local from_start = cursor == '0-0'
for _ = 1, 100 do
    if #taken >= n then
        break
    end
    local found = redis.call('XAUTOCLAIM', stream, group, consumer, longest, cursor, 'COUNT', n - #taken)
    cursor = found[1]
    for _, entry in ipairs(found[2]) do
        deliver(entry[1], entry[2][2])
    end
    if cursor == '0-0' then
        if from_start then
            break
        end
        from_start = true
    end
end
while #taken < n do
    local found = redis.call(
        'XREADGROUP', 'GROUP', group, consumer, 'COUNT', n - #taken, 'STREAMS', stream, '>')
    if not found then
        break
    end
    for _, entry in ipairs(found[1][2]) do
        deliver(entry[1], entry[2][2])
    end
end
return {cursor, taken}
"""

_ACK = """
local id, handle = ARGV[1], ARGV[2]
if lost(id, handle) then
    return 0
end
if release(entry_of(handle)) then
    forget(id)
end
return 1
"""

_NACK = """
local id, handle, delay = ARGV[1], ARGV[2], tonumber(ARGV[3])
local dies, tried = ARGV[4] == '1', ARGV[5] == '1'
if lost(id, handle) then
    return 0
end
if release(entry_of(handle)) then
    if not tried then
        redis.call('HINCRBY', attempts, id, -1)
    end
    if dies then
        bury(id)
    else
        wait(id, delay)
    end
end
return 1
"""

_EXTEND = """
local id, handle, idle = ARGV[1], ARGV[2], ARGV[3]
if lost(id, handle) or not hold(entry_of(handle), idle) then
    return 0
end
return 1
"""

_DEPTH = """
make_group()
local taken = redis.call('XPENDING', stream, group)[1]
local due = redis.call('ZCOUNT', delayed, '-inf', now)
local ready = redis.call('XLEN', stream) - taken + due
return {ready, redis.call('ZCARD', delayed) - due, taken, redis.call('ZCARD', dead)}
"""

_DEAD_LETTERS = """
local found = {}
local rows = redis.call('ZRANGE', dead, 0, ARGV[1] - 1, 'WITHSCORES')
for i = 1, #rows, 2 do
    local id = rows[i]
    local content, count = redis.call('HGET', messages, id), redis.call('HGET', attempts, id)
    table.insert(found, {id, content, count, rows[i + 1]})
end
return found
"""

_IS_DEAD = """
return redis.call('ZSCORE', dead, ARGV[1]) and 1 or 0
"""

_REQUEUE = """
local id = ARGV[1]
if redis.call('ZREM', dead, id) == 0 then
    return 0
end
redis.call('HDEL', attempts, id)
redis.call('HSET', holders, id, '')
wait(id, 0)
return 1
"""

_DROP = """
local id = ARGV[1]
if redis.call('ZREM', dead, id) == 0 then
    return 0
end
forget(id)
return 1
"""

_CLEAR = """
redis.call('DEL', unpack(KEYS))
return 1
"""

ALL = {
    "put": _COMMON + _PUT,
    "take": _COMMON + _TAKE,
    "ack": _COMMON + _ACK,
    "nack": _COMMON + _NACK,
    "extend": _COMMON + _EXTEND,
    "depth": _COMMON + _DEPTH,
    "dead_letters": _COMMON + _DEAD_LETTERS,
    "is_dead": _COMMON + _IS_DEAD,
    "requeue": _COMMON + _REQUEUE,
    "drop": _COMMON + _DROP,
    "clear": _CLEAR,
}
