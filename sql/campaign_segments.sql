-- Purpose: one message per person in one country: of all campaign items, the one that suits each user best, without
--          those who bought from the category in the last ${recent_days} days of the data.
-- Reads:   items, users, interactions with event_type; the solution version ${solution}; ${category}, ${country},
--          ${recent_days}.
-- Returns: user_id, item_id, title, score: each user at most once, best first.
SET item_affinity.solution_version = '${solution}';
-- Who may be in a segment is said within the call: so 200 users of this country remain for each item.
WITH recent_buyers AS (
    SELECT DISTINCT e.user_id
    FROM interactions AS e
    JOIN items AS i ON i.item_id = e.item_id
    WHERE i.category = '${category}' AND e.event_type = 'purchase'
      AND e."timestamp" > (SELECT max("timestamp") FROM interactions) - ${recent_days} * 86400
),
ranked AS (
    SELECT s.user_id, s.item_id, s.score,
           row_number() OVER (PARTITION BY s.user_id ORDER BY s.score DESC, s.item_id) AS choice
    FROM item_affinity_segments(
        items => (SELECT item_id FROM items WHERE category = '${category}'),
        num_results => 200,
        users => (
            SELECT u.user_id FROM users AS u LEFT ANTI JOIN recent_buyers AS b ON b.user_id = u.user_id
            WHERE u.country = '${country}'
        )
    ) AS s
)
SELECT r.user_id, r.item_id, i.title, r.score
FROM ranked AS r
JOIN items AS i ON i.item_id = r.item_id
WHERE r.choice = 1
ORDER BY r.score DESC, r.user_id;
