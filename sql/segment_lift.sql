-- Purpose: how good last month's segments were: the share of their users who then did buy, against that of all users.
-- Reads:   items, interactions that are newer than version ${version} of the solution ${solution}; ${category}, ${days}.
-- Returns: item_id, segment_users, segment_buyers, all_users, all_buyers, lift: an item's first 100 users against everybody
--          in the ${days} days after the version; lift is NULL where nobody bought. Best first.
SET item_affinity.solution_version = '${solution}@${version}';
WITH of_version AS (
    SELECT users, as_of FROM item_affinity_versions('${solution}') WHERE version = ${version}
),
segments AS (
    SELECT item_id, user_id
    FROM item_affinity_segments((SELECT item_id FROM items WHERE category = '${category}'), 100)
),
buyers AS (
    SELECT DISTINCT e.item_id, e.user_id
    FROM interactions AS e
    CROSS JOIN of_version AS v
    WHERE to_timestamp_seconds(e."timestamp") > v.as_of
      AND to_timestamp_seconds(e."timestamp") <= v.as_of + INTERVAL '${days} days'
),
of_segments AS (
    SELECT s.item_id, count(*) AS users, count(b.user_id) AS buyers
    FROM segments AS s
    LEFT JOIN buyers AS b ON b.item_id = s.item_id AND b.user_id = s.user_id
    GROUP BY s.item_id
),
of_all AS (SELECT item_id, count(*) AS buyers FROM buyers GROUP BY item_id)
SELECT s.item_id, s.users AS segment_users, s.buyers AS segment_buyers, v.users AS all_users,
       coalesce(a.buyers, 0) AS all_buyers,
       round(CAST(s.buyers AS DOUBLE) / s.users / (CAST(a.buyers AS DOUBLE) / v.users), 2) AS lift
FROM of_segments AS s
CROSS JOIN of_version AS v
LEFT JOIN of_all AS a ON a.item_id = s.item_id
ORDER BY lift DESC NULLS LAST, s.item_id;
