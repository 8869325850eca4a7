-- wrk script for the readers of bench/status.py: each connection asks ten times a second.

function delay()
    return 100
end
