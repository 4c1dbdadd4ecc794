-- Last write wins for many memberships in one call: v = ts_ms * 2 + disqualified, the larger one stays.
-- KEYS: the hashes of the identifiers. ARGV: triples (index into KEYS, audience, v). v stays below 2^53.
local call = redis.call
for at = 1, #ARGV, 3 do
  local key, audience, v = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  local current = call('HGET', key, audience)
  if not current or tonumber(v) > tonumber(current) then
    call('HSET', key, audience, v)
  end
end
return #ARGV / 3
