"""The eight tables of TPC-H at a small scale, and changes of them.

Written from the shape of the public specification. Values are drawn so that
each of the 22 queries finds rows although the tables are small: few brands,
types and segments, and dates as in the specification. The same seed gives the
same rows.
"""

import datetime
import random

REGIONS = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"]
NATIONS = [("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0),
           ("FRANCE", 3), ("GERMANY", 3), ("INDIA", 2), ("INDONESIA", 2), ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2),
           ("JORDAN", 4), ("KENYA", 0), ("MOROCCO", 0), ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2), ("ROMANIA", 3),
           ("SAUDI ARABIA", 4), ("VIETNAM", 2), ("RUSSIA", 3), ("UNITED KINGDOM", 3), ("UNITED STATES", 1)]
# of these, most suppliers and customers are, so that the queries that name them find some
FREQUENT_NATIONS = [2, 3, 6, 7, 8, 20]

SEGMENTS = ["AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY"]
PRIORITIES = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"]
MODES = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"]
INSTRUCTIONS = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"]
TYPES = ["ECONOMY ANODIZED STEEL", "PROMO BURNISHED BRASS", "STANDARD POLISHED BRASS", "MEDIUM POLISHED TIN",
         "LARGE BRUSHED COPPER"]
CONTAINERS = ["SM CASE", "SM BOX", "MED BAG", "MED BOX", "LG CASE", "LG BOX", "JUMBO PKG"]
COLORS = ["forest", "green", "blush", "ivory", "navy"]
FIRST_DAY = datetime.date(1992, 1, 1)

SCHEMA = """
CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name text NOT NULL, r_comment text);
CREATE TABLE nation (n_nationkey int PRIMARY KEY, n_name text NOT NULL, n_regionkey int NOT NULL, n_comment text);
CREATE TABLE supplier (s_suppkey int PRIMARY KEY, s_name text NOT NULL, s_address text, s_nationkey int NOT NULL,
    s_phone text, s_acctbal numeric(12,2), s_comment text);
CREATE TABLE customer (c_custkey int PRIMARY KEY, c_name text NOT NULL, c_address text, c_nationkey int NOT NULL,
    c_phone text, c_acctbal numeric(12,2), c_mktsegment text, c_comment text);
CREATE TABLE part (p_partkey int PRIMARY KEY, p_name text NOT NULL, p_mfgr text, p_brand text, p_type text, p_size int,
    p_container text, p_retailprice numeric(12,2), p_comment text);
CREATE TABLE partsupp (ps_partkey int, ps_suppkey int, ps_availqty int, ps_supplycost numeric(12,2), ps_comment text,
    PRIMARY KEY (ps_partkey, ps_suppkey));
CREATE TABLE orders (o_orderkey int PRIMARY KEY, o_custkey int NOT NULL, o_orderstatus text, o_totalprice numeric(12,2),
    o_orderdate date NOT NULL, o_orderpriority text, o_clerk text, o_shippriority int, o_comment text);
CREATE TABLE lineitem (l_orderkey int, l_partkey int NOT NULL, l_suppkey int NOT NULL, l_linenumber int,
    l_quantity numeric(12,2), l_extendedprice numeric(12,2), l_discount numeric(12,2), l_tax numeric(12,2),
    l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct text,
    l_shipmode text, l_comment text, PRIMARY KEY (l_orderkey, l_linenumber));
CREATE INDEX ON lineitem (l_partkey);
CREATE INDEX ON lineitem (l_suppkey);
CREATE INDEX ON orders (o_custkey);
"""


class Generator:
    def __init__(self, seed, customers=150, parts=60, suppliers=30):
        self.rng = random.Random(seed)
        self.customers, self.parts, self.suppliers = customers, parts, suppliers
        self.next_order = 1

    def money(self, low, high):
        return self.rng.randint(low * 100, high * 100) / 100

    def nation(self):
        return self.rng.choice(FREQUENT_NATIONS) if self.rng.random() < 0.7 else self.rng.randrange(25)

    def phone(self, nation):
        return f"{nation + 10}-{self.rng.randint(100, 999)}-{self.rng.randint(100, 999)}"

    def tables(self, orders):
        """Rows of all tables: {name: [rows]}."""
        rows = {
            "region": [(i, name, "") for i, name in enumerate(REGIONS)],
            "nation": [(i, name, region, "") for i, (name, region) in enumerate(NATIONS)],
            "supplier": [self.supplier(i) for i in range(1, self.suppliers + 1)],
            "customer": [self.customer(i) for i in range(1, self.customers + 1)],
            "part": [self.part(i) for i in range(1, self.parts + 1)],
            "partsupp": [(p, s, self.rng.randint(1, 9999), self.money(1, 1000), "") for p in range(1, self.parts + 1)
                         for s in sorted(self.suppliers_of(p))],
        }
        rows["orders"], rows["lineitem"] = self.new_orders(orders)
        return rows

    def suppliers_of(self, part):
        return {(part + i * 7) % self.suppliers + 1 for i in range(4)}

    def supplier(self, key):
        nation = self.nation()
        complains = "Customer stock Complaints" if self.rng.random() < 0.1 else "carefully packed"
        return (key, f"Supplier#{key:09}", f"street {key}", nation, self.phone(nation), self.money(-999, 9999), complains)

    def customer(self, key):
        nation = self.nation()
        return (key, f"Customer#{key:09}", f"road {key}", nation, self.phone(nation), self.money(-999, 9999),
                self.rng.choice(SEGMENTS), "")

    def part(self, key):
        name = " ".join(self.rng.sample(COLORS, 2))
        maker = self.rng.randint(1, 5)
        return (key, name, f"Manufacturer#{maker}", self.rng.choice(["Brand#12", "Brand#23", "Brand#34", "Brand#45"]),
                self.rng.choice(TYPES), self.rng.choice([3, 9, 14, 15, 15, 19, 23, 36, 45, 49]),
                self.rng.choice(CONTAINERS), 900 + key, "")

    def new_orders(self, count):
        """Orders and their line items."""
        orders, items = [], []
        for _ in range(count):
            key, day = self.next_order, FIRST_DAY + datetime.timedelta(days=self.rng.randrange(2406))
            self.next_order += 1
            lines = [self.line_item(key, number, day) for number in range(1, self.rng.randint(1, 7) + 1)]
            states = {line[9] for line in lines}
            total = sum(line[5] for line in lines)
            comment = self.rng.choice(["quick", "special packages requests", "final"])
            # a third of the customers never order
            customer = self.rng.randrange(self.customers // 3) * 3 + self.rng.randint(1, 2)
            orders.append((key, customer, states.pop() if len(states) == 1 else "P", round(total, 2), day,
                           self.rng.choice(PRIORITIES), f"Clerk#{self.rng.randint(1, 9)}", 0, comment))
            items += lines
        return orders, items

    def line_item(self, order, number, day):
        part = self.rng.randint(1, self.parts)
        quantity = self.rng.randint(1, 50)
        shipped = day + datetime.timedelta(days=self.rng.randint(1, 121))
        committed = day + datetime.timedelta(days=self.rng.randint(30, 90))
        received = shipped + datetime.timedelta(days=self.rng.randint(1, 30))
        today = datetime.date(1995, 6, 17)
        flag = self.rng.choice("RA") if received <= today else "N"
        return (order, part, self.rng.choice(sorted(self.suppliers_of(part))), number, quantity, quantity * (900 + part),
                self.rng.randint(0, 10) / 100, self.rng.randint(0, 8) / 100, flag, "O" if shipped > today else "F",
                shipped, committed, received, self.rng.choice(INSTRUCTIONS), self.rng.choice(MODES), "")

    # -- changes

    def changes(self, number):
        """SQL of one round of changes: new and old orders go as RF1 and RF2 do, and the rest moves, too."""
        orders, items = self.new_orders(self.rng.randint(10, 30))
        statements = [insert("orders", orders), insert("lineitem", items)]
        gone = ", ".join(str(self.rng.randrange(1, self.next_order)) for _ in range(15))
        statements += [f"DELETE FROM lineitem WHERE l_orderkey IN ({gone})", f"DELETE FROM orders WHERE o_orderkey IN ({gone})"]
        statements += self.rng.sample(self.updates() + self.updates(), 24)
        if number % 3 == 2:
            self.rng.shuffle(statements)
        return statements

    def updates(self):
        rng = self.rng
        order = lambda: rng.randrange(1, self.next_order)
        part, supplier, customer = rng.randint(1, self.parts), rng.randint(1, self.suppliers), rng.randint(1, self.customers)
        return [
            f"UPDATE supplier SET s_acctbal = s_acctbal + 10, s_nationkey = {self.nation()} WHERE s_suppkey = {supplier}",
            f"UPDATE supplier SET s_comment = 'Customer Complaints' WHERE s_suppkey = {rng.randint(1, self.suppliers)}",
            f"UPDATE customer SET c_mktsegment = '{rng.choice(SEGMENTS)}', c_acctbal = -5 WHERE c_custkey = {customer}",
            f"UPDATE customer SET c_nationkey = {self.nation()}, c_phone = '13-1-1' WHERE c_custkey % 30 = {rng.randrange(30)}",
            f"UPDATE part SET p_brand = 'Brand#23', p_container = 'MED BOX' WHERE p_partkey = {part}",
            f"UPDATE part SET p_size = 15, p_type = '{rng.choice(TYPES)}' WHERE p_partkey = {rng.randint(1, self.parts)}",
            f"UPDATE partsupp SET ps_supplycost = ps_supplycost * 0.5, ps_availqty = 9000 WHERE ps_partkey = {part}",
            f"DELETE FROM partsupp WHERE ps_partkey = {rng.randint(1, self.parts)} AND ps_suppkey = {supplier}",
            f"UPDATE orders SET o_orderdate = o_orderdate + 40 WHERE o_orderkey = {order()}",
            f"UPDATE orders SET o_comment = 'special requests', o_custkey = 1 WHERE o_orderkey = {order()}",
            f"UPDATE lineitem SET l_quantity = 49, l_discount = 0.06, l_shipmode = 'MAIL' WHERE l_orderkey = {order()}",
            f"UPDATE lineitem SET l_shipdate = date '1994-06-01', l_receiptdate = l_receiptdate + 20"
            f" WHERE l_orderkey IN ({order()}, {order()})",
            f"DELETE FROM lineitem WHERE l_orderkey = {order()} AND l_linenumber = 1",
            f"UPDATE nation SET n_regionkey = {rng.randrange(5)} WHERE n_nationkey = {rng.randrange(25)}",
            f"DELETE FROM customer WHERE c_custkey = {rng.randint(1, self.customers)}",
            f"UPDATE orders SET o_totalprice = o_totalprice WHERE o_orderkey % 5 = 0",
        ]


def insert(table, rows):
    return f"INSERT INTO {table} VALUES " + ", ".join(
        "(" + ", ".join("'" + value.replace("'", "''") + "'" if isinstance(value, str) else
                        f"'{value}'" if isinstance(value, datetime.date) else str(value) for value in row) + ")"
        for row in rows)
