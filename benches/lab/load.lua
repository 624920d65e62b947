-- The load of one run, as the environment describes it, and its figures as one line of JSON.

local function read(name)
  local file = assert(io.open(os.getenv(name), "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

wrk.method = "POST"
wrk.body = read("LOAD_BODY")

local function lines(text)
  local all = {}
  for line in text:gmatch("[^\n]+") do all[#all + 1] = line end
  return all
end

-- Each request is one of these, written before the run begins.
local requests = {}

function init()
  local tokens, paths = lines(read("LOAD_TOKENS")), lines(read("LOAD_PATHS"))
  for n = 1, math.max(#tokens, #paths, 1) do
    local headers = {["Content-Type"] = "application/json"}
    if #tokens > 0 then headers["Authorization"] = "Bearer " .. tokens[(n - 1) % #tokens + 1] end
    requests[n] = wrk.format(nil, paths[(n - 1) % #paths + 1], headers)
  end
end

local at = 0

-- In place of this word of a path stands another number each time, as a completion goes up once.
local number = os.time() * 1000000
local numbered = read("LOAD_PATHS"):find("NUMBER") ~= nil

function request()
  at = at % #requests + 1
  if not numbered then return requests[at] end
  number = number + 1
  return (requests[at]:gsub("NUMBER", string.format("%d", number), 1))
end

-- A pause before each request, of even distribution between nothing and twice the mean.
local mean = tonumber(os.getenv("LOAD_PAUSE_MS") or "0")
if mean > 0 then
  function delay()
    return math.floor(2 * mean * math.random() + 0.5)
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    'LOAD {"requests":%d,"micros":%d,"failed":%d,"p50":%d,"p99":%d,"p999":%d}\n',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9)))
end
