-- A workload for wrk from its command line, and its result as one line of JSON.
--   wrk ... -s workload.lua URL -- METHOD BODY_BYTES ["Name: value" ...]

function init(args)
    wrk.method = args[1]
    local size = tonumber(args[2])
    if size > 0 then
        wrk.body = string.rep("x", size)
    end
    for i = 3, #args do
        local name, value = args[i]:match("^([^:]+): (.*)$")
        wrk.headers[name] = value
    end
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format(
        'RESULT {"requests": %d, "seconds": %.6f, "bytes": %d, "p50": %.1f, "p99": %.1f, "max": %.1f, '
            .. '"socket_errors": %d, "status_errors": %d}\n',
        summary.requests, summary.duration / 1e6, summary.bytes,
        latency:percentile(50), latency:percentile(99), latency.max,
        e.connect + e.read + e.write + e.timeout, e.status))
end
