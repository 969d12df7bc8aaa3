-- Purpose: shows before training what the interactions are like, as `item-affinity check` does, in plain SQL.
-- Reads:   interactions, items, users.
-- Returns: one row per check: check_name, value.
WITH by_user AS (SELECT user_id, count(*) AS events FROM interactions GROUP BY user_id),
checks AS (
    SELECT 1 AS n, 'interactions' AS check_name, count(*) AS value FROM interactions
    UNION ALL SELECT 2, 'users', count(*) FROM by_user
    UNION ALL SELECT 3, 'users with two or more', count(*) FROM by_user WHERE events >= 2
    UNION ALL SELECT 4, 'items', count(DISTINCT item_id) FROM interactions
    UNION ALL SELECT 5, 'interactions with a missing field', count(*) FROM interactions
              WHERE user_id IS NULL OR item_id IS NULL OR "timestamp" IS NULL
    UNION ALL SELECT 6, 'interactions with items that items lacks', count(*) FROM interactions AS e
              WHERE NOT EXISTS (SELECT 1 FROM items AS i WHERE i.item_id = e.item_id)
    UNION ALL SELECT 7, 'interactions with users that users lacks', count(*) FROM interactions AS e
              WHERE NOT EXISTS (SELECT 1 FROM users AS u WHERE u.user_id = e.user_id)
    UNION ALL SELECT 8, 'items without interactions', count(*) FROM items AS i
              WHERE NOT EXISTS (SELECT 1 FROM interactions AS e WHERE e.item_id = i.item_id)
)
SELECT check_name, value FROM checks ORDER BY n;
