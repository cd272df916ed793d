"""How fast promptclf is, as ratios to what people use today.

    PYTHONPATH=tests python -m benchmarks.speed             # under 15 minutes; writes results/speed/*.json
    PYTHONPATH=tests python -m benchmarks.speed --full      # more texts and rounds
    PYTHONPATH=tests python -m benchmarks.speed --table     # print the tables of what is there
    PYTHONPATH=tests python -m benchmarks.speed --dtype bfloat16 --only zero-shot few-shot  # of both sides

Every way to do a piece of work (a variant) is a process of its own, so that its peak memory is its own, and
all of a group take turns, round by round, on the same texts, so that what slows the machine down slows all
of them. On a CPU one thread is used, and the clock is CPU time. Slow peers get the first few of the texts,
which are ordered so that any first few are as long as all of them.
"""
