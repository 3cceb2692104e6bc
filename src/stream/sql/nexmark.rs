/// The queries q0 to q5, q7, q8, q11 and q12 of Nexmark as they are written for Flink: <https://github.com/nexmark/nexmark>.
pub const NEXMARK: &[(&str, &str)] = &[
    ("q0", "SELECT auction, bidder, price, `dateTime`, extra FROM bid;"),
    (
        "q1",
        "SELECT auction, bidder, 0.908 * price as price, -- convert dollar to euro
            `dateTime`, extra FROM bid;",
    ),
    ("q2", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0;"),
    (
        "q3",
        "SELECT P.name, P.city, P.state, A.id FROM auction AS A INNER JOIN person AS P on A.seller = P.id
         WHERE A.category = 10 and (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA');",
    ),
    (
        "q4",
        "SELECT Q.category, AVG(Q.final) FROM (
            SELECT MAX(B.price) AS final, A.category FROM auction A, bid B
            WHERE A.id = B.auction AND B.`dateTime` BETWEEN A.`dateTime` AND A.expires
            GROUP BY A.id, A.category
        ) Q GROUP BY Q.category;",
    ),
    (
        "q5",
        "SELECT AuctionBids.auction, AuctionBids.num FROM (
           SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
             FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
             GROUP BY auction, window_start, window_end
         ) AS AuctionBids
         JOIN (
           SELECT max(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime
           FROM (
             SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
             FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
             GROUP BY auction, window_start, window_end
           ) AS CountBids
           GROUP BY CountBids.starttime, CountBids.endtime
         ) AS MaxBids
         ON AuctionBids.starttime = MaxBids.starttime AND AuctionBids.endtime = MaxBids.endtime AND AuctionBids.num >= MaxBids.maxn;",
    ),
    (
        "q7",
        "SELECT B.auction, B.price, B.bidder, B.`dateTime`, B.extra
        from bid B
        JOIN (
          SELECT MAX(price) AS maxprice, window_end as `dateTime`
          FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
          GROUP BY window_start, window_end
        ) B1
        ON B.price = B1.maxprice
        WHERE B.`dateTime` BETWEEN B1.`dateTime`  - INTERVAL '10' SECOND AND B1.`dateTime`;",
    ),
    (
        "q8",
        "SELECT P.id, P.name, P.starttime FROM (
          SELECT id, name, window_start AS starttime, window_end AS endtime
          FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
          GROUP BY id, name, window_start, window_end
        ) P
        JOIN (
          SELECT seller, window_start AS starttime, window_end AS endtime
          FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
          GROUP BY seller, window_start, window_end
        ) A
        ON P.id = A.seller AND P.starttime = A.starttime AND P.endtime = A.endtime;",
    ),
    (
        "q11",
        "SELECT B.bidder, count(*) as bid_count,
            SESSION_START(B.`dateTime`, INTERVAL '10' SECOND) as starttime,
            SESSION_END(B.`dateTime`, INTERVAL '10' SECOND) as endtime
        FROM bid B
        GROUP BY B.bidder, SESSION(B.`dateTime`, INTERVAL '10' SECOND);",
    ),
    (
        "q12",
        "CREATE VIEW B AS SELECT *, PROCTIME() as p_time FROM bid;
        INSERT INTO nexmark_q12
        SELECT bidder, count(*) as bid_count, window_start AS starttime, window_end AS endtime
        FROM TABLE(TUMBLE(TABLE B, DESCRIPTOR(p_time), INTERVAL '10' SECOND))
        GROUP BY bidder, window_start, window_end;",
    ),
];

/// q6, the average price of the last ten auctions of a seller that were closed, whose window over rows SQL does not have here (and Flink does not
/// run): the bids of each auction while it was open,
pub const Q6_BIDS: &str = "
    SELECT A.id, A.seller, B.price, A.`dateTime` AS begun, A.expires + INTERVAL '1' MICROSECOND AS closed
    FROM auction A, bid B WHERE A.id = B.auction AND B.`dateTime` BETWEEN A.`dateTime` AND A.expires;";

/// and what is behind them, of the node `BIDS`: each auction is a window of its own, which closes when time has come past its end.
pub const Q6_NODES: &str = r#"[
    {"name": "auctions", "inputs": ["BIDS"], "operator": {"project": {"columns": [
        ["id", {"text": "id"}], ["seller", {"text": "seller"}], ["price", {"text": "price"}],
        ["window_start", {"text": "begun"}], ["window_end", {"text": "closed"}]]}}},
    {"name": "finals", "inputs": ["auctions"], "operator": {"aggregate": {"window": "attached", "keys": ["seller", "id"],
        "aggregates": [{"name": "final", "function": "max", "input": {"text": "price"}}]}}},
    {"name": "last ten", "inputs": ["finals"], "operator": {"aggregate": {"window": {"count": {"size": 10, "slide": 1}}, "keys": ["seller"],
        "aggregates": [{"name": "average", "function": "avg", "input": {"text": "final"}}]}}},
    {"name": "output", "inputs": ["last ten"], "operator": {"sink": {}}}
]"#;
