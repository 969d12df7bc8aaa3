-- Purpose: keeps some users out of a campaign, so that its effect can be measured: the same users for every item and
--          every run, since a hash of the user decides. Another ${salt} draws others.
-- Reads:   items; the solution version ${solution}; ${category}, ${salt}, ${holdout_percent} of the users.
-- Returns: item_id, rank, user_id, score, arm: 'holdout' or 'campaign'.
SET item_affinity.solution_version = '${solution}';
-- The first 32 bits of the hash are even: below the percentage of 2^32 is the hold-out.
SELECT item_id, rank, user_id, score,
       CASE WHEN concat('0', substr(md5(concat('${salt}', ':', user_id)), 1, 8))
                 < lpad(to_hex(CAST(${holdout_percent} * 42949672.96 AS BIGINT)), 9, '0')
            THEN 'holdout' ELSE 'campaign' END AS arm
FROM item_affinity_segments((SELECT item_id FROM items WHERE category = '${category}'), 300)
ORDER BY item_id, rank;
