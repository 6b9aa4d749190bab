"""What strangers may send, and what they must not get."""


def test_smoke(server):
    with server.client() as client:
        print(client.get("/v1/models").json())
        for body in [{"messages":[{"role":"user","content":"hello"}], "logprobs": True, "top_logprobs": 2},
            {"messages":[{"role":"user","content":"hello"}], "n": -1},
            {"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}]},
            {"messages":[{"role":"user","content":{"a":1}}]},
            {"messages":"x"}, {"a\ud83d\ude00":1,"messages":[{"role":"user","content":"x"}]}, [], 
            {"messages":[{"role":"user","content":"x"}], "stop": 5},
            {"messages":[{"role":"user","content":"x"}], "stop": ["a", 5]},
            {}]:
            r = client.post("/v1/chat/completions", json=body)
            print(r.status_code, r.text[:400], dict(r.headers))
        for p in ["", 5, [1,"a"], ["a",1], [], [[]], {"a":1}]:
            r = client.post("/v1/completions", json={"prompt":p})
            print(p, r.status_code, r.text[:400])
        print(client.get("/metrics").text[:1500])
        import time
        for what in (b'{"prompt":[%s]}' % (b'"a",' * 900000 + b'1'), b'{"prompt":[%s]}' % (b'"",' * 1000000 + b'1'), b'{%s "prompt":"a"}' % b"".join(b'"%d":1,' % i for i in range(400000)),
            b'{"messages":[%s]}' % (b'{},' * 1000000 + b'1'), b'{"messages":[{"role":"user","content":[%s]}]}' % (b'{},' * 1000000 + b'1'), b'{"prompt":[%s1]}' % (b'[],' * 1000000),b'{"prompt":[%s1]}' % (b'1,' * 2000000)):
            t = time.time()
            r = client.post("/v1/completions" if b"prompt" in what else "/v1/chat/completions", content=what, headers={"Content-Type":"application/json"})
            print(len(what), r.status_code, r.text[:300], time.time() - t)
