#!lua name=segmentd_1
-- What runs inside the cluster. A membership is v = ts_ms * 2 + (1 if disqualified), merged by the larger v. All keys of
-- a call lie in one slot, so a call is atomic. Strings that stand for numbers are stored as they came: a Lua number is a
-- double, which is exact below 2^53 and so for every v, but would be written in another form.

local STALE = 'SEGMENTD_STALE '

-- The fence of a partition: writers that know less of the registry than this are refused.
local function behind(fence_key, known)
  local fence = redis.call('GET', fence_key)
  if fence and tonumber(fence) > tonumber(known) then
    return redis.error_reply(STALE .. fence)
  end
  return nil
end

-- Beside a token's members the counts have how many users there are (n), and how many memberships they have (m).
local function count(counts, users, memberships)
  if users ~= 0 then redis.call('HINCRBY', counts, 'n', users) end
  if memberships ~= 0 then redis.call('HINCRBY', counts, 'm', memberships) end
end

-- KEYS: fence, counts, latest, then users and member sets as the packed list names them by position.
-- ARGV: the version of the registry that the writer knows; 1 if the changes are events, 0 if a list's;
--       packed [user, members, token, id, v, ...].
-- Returns how many changes were news.
redis.register_function('segmentd_merge', function(keys, args)
  local refused = behind(keys[1], args[1])
  if refused then return refused end
  local call = redis.call
  local packed, news, held, users, moved, latest = cmsgpack.unpack(args[3]), 0, 0, 0, {}, {}
  for at = 1, #packed, 5 do
    local user, token, v = keys[packed[at]], packed[at + 2], packed[at + 4]
    local now, had = tonumber(v), tonumber(call('HGET', user, token) or -1)
    if now > had then
      if had < 0 then
        held = held + 1
        if call('EXISTS', user) == 0 then users = users + 1 end
      end
      call('HSET', user, token, v)
      news = news + 1
      local was, is = had >= 0 and had % 2 == 0, now % 2 == 0
      if was ~= is then
        moved[token] = (moved[token] or 0) + (is and 1 or -1)
        local members = keys[packed[at + 1]]
        if is then call('ZADD', members, 0, packed[at + 3]) else call('ZREM', members, packed[at + 3]) end
      end
    end
    if not latest[token] or now > tonumber(latest[token]) then latest[token] = v end
  end
  for token, by in pairs(moved) do
    if by ~= 0 then call('HINCRBY', keys[2], token, by) end
  end
  count(keys[2], users, held)
  if args[2] == '1' then
    for token, v in pairs(latest) do
      if tonumber(v) > tonumber(call('HGET', keys[3], token) or -1) then call('HSET', keys[3], token, v) end
    end
  end
  return news
end)

-- KEYS: latest. ARGV: token, v, ... The largest v of the events of each token, as another store knew it.
redis.register_function('segmentd_latest', function(keys, args)
  for at = 1, #args, 2 do
    local held = tonumber(redis.call('HGET', keys[1], args[at]) or -1)
    if tonumber(args[at + 1]) > held then redis.call('HSET', keys[1], args[at], args[at + 1]) end
  end
  return #args / 2
end)

-- KEYS: fence. ARGV: version. From now on writers have to know this version of the registry.
redis.register_function('segmentd_fence', function(keys, args)
  local fence = tonumber(redis.call('GET', keys[1]) or -1)
  if tonumber(args[1]) > fence then redis.call('SET', keys[1], args[1]) end
  return redis.call('GET', keys[1])
end)

-- KEYS: fence, counts, user, then the member sets of the tokens. ARGV: known version, id, then the tokens.
-- Returns 0 if the user has other tokens too and nothing was done, else 1.
redis.register_function('segmentd_forget', function(keys, args)
  local refused = behind(keys[1], args[1])
  if refused then return refused end
  local call, position = redis.call, {}
  for at = 3, #args do position[args[at]] = at + 1 end
  local held = call('HGETALL', keys[3])
  for at = 1, #held, 2 do
    if not position[held[at]] then return 0 end
  end
  for at = 1, #held, 2 do
    local token = held[at]
    if call('ZREM', keys[position[token]], args[2]) == 1 then call('HINCRBY', keys[2], token, -1) end
  end
  if call('DEL', keys[3]) == 1 then count(keys[2], -1, -#held / 2) end
  return 1
end)

-- What deleted audiences have left behind. KEYS: counts, then the users. ARGV: the tokens. Returns how many memberships.
redis.register_function('segmentd_drop', function(keys, args)
  local users, dropped = 0, 0
  for at = 2, #keys do
    local gone = redis.call('HDEL', keys[at], unpack(args))
    dropped = dropped + gone
    if gone > 0 and redis.call('EXISTS', keys[at]) == 0 then users = users + 1 end
  end
  count(keys[1], -users, -dropped)
  return dropped
end)

-- The registry: entries field -> rank:payload of which the larger rank stays, and the version that each got last.
-- KEYS of all that follows: meta, entries, versions.

-- A server that has taken the registry over may lack the last entries: versions that were given out must not be given
-- again, so it begins far above what it knows. More versions than can be given out between a failover and this:
local MARGIN = 1048576

local function version_of(meta, known)
  local me = redis.call('CLUSTER', 'MYID')
  local version = tonumber(redis.call('HGET', meta, 'version') or 0)
  if redis.call('HGET', meta, 'owner') ~= me then
    version = math.max(version, known) + MARGIN
    redis.call('HSET', meta, 'owner', me, 'version', string.format('%.0f', version))
  end
  return version
end

local function rank_of(held)
  return held and tonumber(string.match(held, '^(%-?%d+):')) or -1
end

-- ARGV: for each entry: field, the rank it must have now ('' for any, '-1' for none), rank, payload.
-- Returns {version}, or {-1, field, its rank} where a rank was not the one expected and the entry is not there already:
-- a call whose answer was lost is repeated.
redis.register_function('segmentd_register', function(keys, args)
  for at = 1, #args, 4 do
    local held = redis.call('HGET', keys[2], args[at])
    local is_expected = args[at + 1] == '' or tonumber(args[at + 1]) == rank_of(held)
    if not is_expected and held ~= args[at + 2] .. ':' .. args[at + 3] then
      return {-1, args[at], rank_of(held)}
    end
  end
  local version = version_of(keys[1], 0)
  local changed = {}
  for at = 1, #args, 4 do
    if tonumber(args[at + 2]) > rank_of(redis.call('HGET', keys[2], args[at])) then
      redis.call('HSET', keys[2], args[at], args[at + 2] .. ':' .. args[at + 3])
      changed[#changed + 1] = args[at]
    end
  end
  if #changed > 0 then
    version = redis.call('HINCRBY', keys[1], 'version', 1)
    for _, field in ipairs(changed) do redis.call('ZADD', keys[3], version, field) end
  end
  return {version}
end)

-- ARGV: fields that nobody needs any more.
redis.register_function('segmentd_unregister', function(keys, args)
  for at = 1, #args do
    redis.call('HDEL', keys[2], args[at])
    redis.call('ZREM', keys[3], args[at])
  end
  return #args
end)

-- For whoever notices a new owner before anything is registered there. ARGV: a version that was given out.
-- Returns the version.
redis.register_function('segmentd_inherit', function(keys, args)
  return version_of(keys[1], tonumber(args[1]))
end)
