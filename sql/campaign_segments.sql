-- Purpose: one message per person: of all campaign items, the one that suits each user best, in one country.
-- Reads:   items, users; the solution version ${solution}; ${category}, ${country}.
-- Returns: user_id, item_id, title, score: each user at most once.
SET item_affinity.solution_version = '${solution}';
WITH ranked AS (
    SELECT s.user_id, s.item_id, s.score,
           row_number() OVER (PARTITION BY s.user_id ORDER BY s.score DESC, s.item_id) AS choice
    FROM item_affinity_segments((SELECT item_id FROM items WHERE category = '${category}'), 200) AS s
    JOIN users AS u ON u.user_id = s.user_id
    WHERE u.country = '${country}'
)
SELECT r.user_id, r.item_id, i.title, r.score
FROM ranked AS r
JOIN items AS i ON i.item_id = r.item_id
WHERE r.choice = 1
ORDER BY r.score DESC, r.user_id;
