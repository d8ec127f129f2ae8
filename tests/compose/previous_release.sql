-- PostgreSQL's plain dump of a database that a service at migration 0003 filled through its command line and its API.
CREATE TABLE public.aggregator_outcomes (
    expert_id character varying(64) NOT NULL,
    question_id character varying(128) NOT NULL,
    category character varying(128),
    correct boolean NOT NULL,
    answer text NOT NULL,
    error text
);
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.experts (
    id character varying(64) NOT NULL,
    version integer NOT NULL,
    enabled boolean NOT NULL,
    backend character varying(32) NOT NULL,
    model text NOT NULL,
    description text NOT NULL,
    base_url text,
    api_key text,
    adapter_of text,
    context_length integer NOT NULL,
    chars_per_token double precision NOT NULL,
    capabilities json NOT NULL,
    roles json NOT NULL,
    skills json NOT NULL,
    exemplars json NOT NULL,
    labels json NOT NULL,
    parameters_b double precision,
    memory_mb double precision,
    price_prompt double precision NOT NULL,
    price_completion double precision NOT NULL,
    sampling json NOT NULL,
    extra_body json NOT NULL,
    aggregation_prompt character varying(64) NOT NULL,
    max_in_flight integer NOT NULL,
    queue_timeout_s double precision NOT NULL,
    timeout_s double precision NOT NULL,
    serving json DEFAULT '{}'::json NOT NULL
);
CREATE TABLE public.labelled_questions (
    id character varying(128) NOT NULL,
    question text NOT NULL,
    answer text NOT NULL,
    category character varying(128),
    skills json NOT NULL,
    options json NOT NULL,
    grader character varying(32),
    history json NOT NULL,
    source text NOT NULL,
    updated_at double precision NOT NULL
);
CREATE TABLE public.profile_counts (
    expert_id character varying(64) NOT NULL,
    skill character varying(128) NOT NULL,
    num_answered integer NOT NULL,
    num_correct integer NOT NULL
);
CREATE TABLE public.profile_outcomes (
    run_id character varying(64) NOT NULL,
    expert_id character varying(64) NOT NULL,
    question_id character varying(128) NOT NULL,
    recorded bigint NOT NULL,
    counts boolean NOT NULL,
    category character varying(128),
    skills json NOT NULL,
    correct boolean NOT NULL,
    answer text NOT NULL,
    latency_ms double precision NOT NULL,
    error text
);
CREATE TABLE public.profile_runs (
    id character varying(64) NOT NULL,
    state character varying(32) NOT NULL,
    created_at double precision NOT NULL,
    finished_at double precision,
    expert_ids json NOT NULL,
    question_ids json NOT NULL,
    note text NOT NULL
);
CREATE TABLE public.question_vectors (
    encoder_id character varying(256) NOT NULL,
    question_id character varying(128) NOT NULL,
    vector bytea NOT NULL
);
CREATE TABLE public.registry_state (
    id integer NOT NULL,
    version bigint NOT NULL,
    questions_version bigint NOT NULL
);
CREATE TABLE public.retired_versions (
    kind character varying(32) NOT NULL,
    id character varying(64) NOT NULL,
    version integer NOT NULL
);
CREATE TABLE public.skills (
    name character varying(128) NOT NULL,
    description text NOT NULL
);
CREATE TABLE public.strategies (
    id character varying(64) NOT NULL,
    version integer NOT NULL,
    enabled boolean NOT NULL,
    description text NOT NULL,
    router character varying(64) NOT NULL,
    router_options json NOT NULL,
    pick_kind character varying(32) NOT NULL,
    pick_k integer NOT NULL,
    pick_threshold double precision NOT NULL,
    aggregator character varying(32) NOT NULL,
    aggregator_expert character varying(64),
    fallback_expert character varying(64),
    max_calls integer NOT NULL,
    timeout_s double precision NOT NULL
);
CREATE TABLE public.trace_experts (
    trace_id character varying(128) NOT NULL,
    expert_id character varying(64) NOT NULL
);
CREATE TABLE public.traces (
    id character varying(128) NOT NULL,
    started_at double precision NOT NULL,
    model character varying(256) NOT NULL,
    strategy character varying(64),
    status character varying(32) NOT NULL,
    document json NOT NULL,
    request_id character varying(128) DEFAULT ''::character varying NOT NULL
);
COPY public.aggregator_outcomes (expert_id, question_id, category, correct, answer, error) FROM stdin;
\.
COPY public.alembic_version (version_num) FROM stdin;
0003
\.
COPY public.experts (id, version, enabled, backend, model, description, base_url, api_key, adapter_of, context_length, chars_per_token, capabilities, roles, skills, exemplars, labels, parameters_b, memory_mb, price_prompt, price_completion, sampling, extra_body, aggregation_prompt, max_in_flight, queue_timeout_s, timeout_s, serving) FROM stdin;
old-law	1	f	openai	m	Kept since the release before.	http://127.0.0.1:9/v1	\N	\N	4096	4	[]	["candidate"]	["law"]	[]	["legal"]	\N	\N	0	0	{}	{}	moa	32	10	120	{}
facts	1	t	embedded	facts		\N	\N	\N	512	1	[]	["candidate"]	["capitals"]	[]	[]	\N	\N	0	0	{"temperature": 0.0}	{}	moa	32	10	120	{}
\.
COPY public.labelled_questions (id, question, answer, category, skills, options, grader, history, source, updated_at) FROM stdin;
old-1	What is the capital of Kenya?	Nairobi	\N	["capitals"]	[]	\N	[]	compose-old-q.jsonl	1795359781.54562
old-2	What is the capital of Peru?	Lima	\N	["capitals"]	[]	\N	[]	compose-old-q.jsonl	1795359781.54562
old-3	Is a contract without consideration void?	Yes	\N	["law"]	[]	\N	[]	compose-old-q.jsonl	1795359781.54562
\.
COPY public.profile_counts (expert_id, skill, num_answered, num_correct) FROM stdin;
facts		3	2
facts	capitals	2	2
facts	law	1	0
\.
COPY public.profile_outcomes (run_id, expert_id, question_id, recorded, counts, category, skills, correct, answer, latency_ms, error) FROM stdin;
run-b86419a7d9fd46ce	facts	old-2	3	t	\N	["capitals"]	t	Lima	80.32718899994507	\N
run-b86419a7d9fd46ce	facts	old-1	3	t	\N	["capitals"]	t	Nairobi	104.84105000000454	\N
run-b86419a7d9fd46ce	facts	old-3	3	t	\N	["law"]	f	New Zealand	89.79882299991004	\N
\.
COPY public.profile_runs (id, state, created_at, finished_at, expert_ids, question_ids, note) FROM stdin;
run-b86419a7d9fd46ce	finished	1795359804.8507185	1795359806.0641725	["facts"]	["old-1", "old-2", "old-3"]	
\.
COPY public.question_vectors (encoder_id, question_id, vector) FROM stdin;
all-MiniLM-L6-v2-int8-1	old-1	\\xeaa2233d81dac93d94b7cdbc63648e3d07aa35bdf4d600bd9538afbb0e9fedbc2ea5de3b801db83d291b85bc17a12ebe17ac3fbdaff03cbdd468e0bcb71689bd90a9e73c9c6b483cca9b5abcbbdf393cfd706b3bc93ca1bb54724c3d77fb59bdbe24613d86f6d13d87232a3bf5c8753c1c932a3c343ce8bc52f4833a7c51e9bd4a333f3c7481413dd67841b9741cbb3da6358fbc256c5f3d96f1ec3dcfe83a3c746ce73d4af4e1bc9a9f2d3d0b947cbd4e3dc53d93b195bc6ec7c33ce086dd3ce63ebf3c2e4624bd5fde833d4f626bbd0c88f6bd5fdc583cb3d9573ba1961bbdef814abdf1a887bc3d01913d139e383de6321fbb717328bdac93bebcf4d56d3dbcd6963dffbfd2bd3366d8bcd5d2873b1bb20bbc4e2703bddaf6483d7f4267bdc0904d3dc9b567bdc709993c56f34abdc62cffbca544973d2517b0bc36318f3dde5e7b3db60de3bb68812bbd83be6c3dc715b4bc04318abdb16e2cbd5943c13a0da80dbd7868a9bd2033d33c9b8aa23c70ac273c46a7ec3a4e4aa9bd38748c39aee3d0bd12d57c3d685ba8bd19845a3d0fc325bd418e1c3cb5bb453d20c477bc7de8a73c01a7093d4937b2bb5bbf833c15b02e3d6845fabc961d0dbee993febb3d5cfdbd13c2713ca5f2b03d3965c03c2313b7bb2af88abd0c6c09bb89617e3d06ffe6bc72ecf1bd490fad3c9ab86cbd3acdc1bdf73410bcec01bbbcd31e248a4c78be3cb1c80fbd08504c3d458f713ab865efbafaf251bddf69a1bce4d088bd560aaebc363796bc25d1f93c0dbfc8bd034060bdf8a5e9bc8667013d2079353db1fba23bc6f9de3a6d6764bdbe74b13cc8c3963ce89c46bddaa068bd8ba4a8bcf6e6353d105b19bcfde7ac3bb54155bbfaa1263daa51a53cd4f6353dd0ff743ded2f78bd08d124bdec5586bda630803cb96c99bd98e4123c3c2e2e3d5ab2e03c78e81ebdbcec8abd03e552bdd7f6663de184393d80b6573d584c99bc5df6c9bcbdf4e23d1baed4ba153edb3c71b296bcf6e374bd1deff83c2a002e3df608c13c92e04d3b1b58563c50d6563d899a9d3dd05a2bbc76ed53b90ca6b1bcbd351d3dd67f543ddd44ec3cad0d6f3dc57cfb3c6df92a3d61c45cbd3829773cf27e613caf194b3c9585bd3db0d36fbd0d1a25bc1439773bfe21b73c522a76bc6ec49a3d0c6a293dbdfc94bba3652dbde8f3903ca6d2f2bc7c013cbdefa65dbde2bf96bd821907bdc36dd4bd80fb3ebd0a49ff3b13a479bdd2b720bdf97a3cbdea97b509e11dde3dc61158bd0957b9bd4d86193d955c4fbd0720a13bbf0b9a3d7546803d90172cbdfcaa843dbc18d2bc0b2c90bdaa65323d591d7b3d59e4873db9f64f3df96e9a3cee81603df0088c3c51d3c3bd257e0bbc6031823c0fba8ebd3f621bbd5579e4bc25a804bd9deb03bede14673c940866bdc0f0673dda81eebc7ac9f23cd03ed7bc2a098e3d6a2585bd89da423df87aee3c90be45bcea60d73c8129373dbb2be53d90a9f43c68dc703d2016b33dd7ee2b3d834e433c14eea03dc805a63d0bc7193df6d6a8bc9d65973db69a673da5f62fbdbcdfae3ce052183d7f5db83dd34a66bdd1bf063dff5f5bbd2119c0bd852afc3ccfa339bdf4ece23c2a7931bc84c4e5bceeab213dded3a8bbe47b9b3cc491c03b0af0933c0c539b3d3d013cbd971a71bd4dd885bba6c9d8bbb673ea3de6eaaf3dbc2b2f3d1361813bcd5813bda38634bdb96e833ccccdedbb5ec7f4bc8e7d97bc3f6bb13dfe8fa53d0828c8bd1ed06dbd7d92833d262491bda41c053c766e0b3b94f7d23b2863c4bd859086b2a737053d1a04e03c2de3653c4d62a83d7678d23c6949603d173a88bb484891bd0448b3bb7f86163d4011abbc74ab8c3d82b99bbdad3a2abd4e9109bdacf057bc924924bca173c63df7e1003d800e193bca21e5bb03b5b7395a6186bcbd0051bd1b300c3dda3bd7bb35766c3ddee5ba3dbd2b953da3a7c63c3725183d53fe91bbc0c854bd793482bd2e9440bde6d542bd3eef1bbd9f6329bd9b9c1bbd90d095bd302bd03cbbf8163d09f78f3d752798bb8f41653b80ce483d98d16a3dac32533c65a513bda4eadcbdc55c02be7851083d47d2023c72b6003c8bfcb1bc6f711bbc839a8ebc38f568bc9d2f4bbbf65e9a3cc8ec323d169537bdc4fcc1bbee7bda3c
all-MiniLM-L6-v2-int8-1	old-2	\\xfbc3e93d34e4c1bc4711aabd40807d3d1f13a23c8b15ecbdffe7a53c099feabcc5812dbdfd93e13d7283673d044080bd61cccdb9b950473da658093dbe0e83bde1d1a4bd19007dbdf679a63dfb96c83b2ea9bcbbd9c7d63bac7d20bc71ab503d6d4eb5bb4b19fb3c093d7cbb004c46bb35c2b1bbccccf7bc82d353bdf33c9ebdb109a33d0997b93b748e61bd32c3f13ce8b6143d3a31303d9dcc97bc752f02bdfb1eb33c8f7ca03cc5dba63d3cd1e93c2c58013c034bc3bc58bf213d52b2f03c6e07d33d56e206bd12e1c53d18a974ba077dc7bd7ab7c63b7d627bbdae0b8c3ddfeb323ce18e4dbd4d05a93c4c83a33d4d8550bdd595cabb0ab672bd1b94a03b67fdb43d669275bd0c23273df15fbf3b1e6c35bd790be2bc3b4eaf3d052588bd6767993c68f2ffbb349e88bdee304abd3141fc390f31563dae1785bcb0a4a83dbadcb43c4077abbcd62b9bbd4b11283d5adfb23bb15a133df03a98bc7a3d76bd521e523c192856bd5cf8d33c96714b3de772cdbc22e400bca5badcbd26b8183d3ca22dbdcc1b073ba2ccb0bd1132403d455b953d0272e3bc7159ee3a3213c3bdf0663fbdb735293db863e3bc505092ba33445b3cdc6a653d148efdbd4021d13b25450dbdec231c3dc13e703cf057bf3dff329a3d5d98113d6eb929bdffbcecbcfc8e22bd12bdfcbbc5cfef3c6aa543bd4cd80abd6f1e4ebdc6c791bc18bc1a8a9f84f8bb0d61ebbc638aa8bc6e806a3d37bcf9bbc528173dd5e5d83c9631a53c3c6ff1bbb7392bbd4565e83cc91e01be8d4a32bc242353bd4abe9f3d8cb4053da9b0553c29cd68bce9791dbc1fa4453c9b9908bd0ee3b83cb9662ebd9c7230bc907d193b9cc9433d9114acbd51445abd817cbd3c6ccc043d56c4603b2a68353deda300bdff57b13cb8ceb33caa7e883b3f5ea3bb034b33bca36dd5bc1a934c3de62ebf3c6b15f2bc350b47bd4442cb3c60bc11bb668fc0bb0cce163ce3932a3da6757a3deecd793b6d7213bd334eb7bab88355bdd57ba9bc2d168cbcad63c63ba0d468bcc24baebbc419703db8e1473dc61d683def54863c6fabb1bc24f9463deb889abba089153de478063d2d4b8cbc6fa5fa3d69f1a6bc89ba963cedeb99bcb6f7ecbcc4d0f13d9c6770bcd0e15eba67ea8cbc1cae993c7fa4af3c0314a93de4a490bd53114b3d4bc8c4bccc71a63de6051ebdb877033d87163c3d0a581e3ca359d1bcec4ceabd1bbdb5bc4b7c96bc76e1df3ce07db0bdd06553bd4e18aa0958860fbcda06e2bd69388dbde7f5803c9edf45bdc286a3bd45ec0d3c67c2743d9f5a5bbd8e2955bd3d0d0bbd8ba9b1bd6801113dd4e3af3ce8fcc13d6047ca3dfc55733d93a2473b570434bd764fecbc1e468fbde13eac3cd1c41d3b93afccbcb365033cf69f89bdfa713bbd4a7973bd4a39b1bb713b2f3d948b84bd2f95223d1d372cbcd08d593dc47e9abd773d413d45a6f83cd0a6aabcd05deb3ce250da3d13557e3dd707b63d984ca03df6970a3ea20a27bcf72897bb7322613d83a27c3dd877e6bca4bd213cc1b2a03df22f21bd44ebacbca2cd3fbcab07373dce04b6bcc49786bd259e973de697e6bda65064bd38808c3c15ee92bc35bfd4bd789af53c6ccf96396e36a63c2522ecbb57ad203dd6974abc077135bdc6ea973df31161bde0e6efbc9a422a3de69876bd6f67da3ceeecbe3dd3ff2e3df31aaa3d087fdfbcdb5680bde642463ddc0cc13c87762abd55cc82bc46dfc83d7515df3a841382bd1a7639bbbe62bf3db35761bdcac9093dfff1e9bba79604bdbed1c0bc16f287b28508443d96f72ebda03acebb759a083dc494a0bcce448a3d6c1d943c0f2f43bc180b043d25d5a43da225863c4cf0de3cd0f170bdcaeff5bcff18b9bd1ad9393d3e62e73c459e593e3fcababcfea951bd901e2abd4588ac3cfed994bdd8d895bdaf943ebc91e9213b535138bd7b51e13cc0fb4a3c1cff3ebdcb12b43c4ef993bdcd138fbd0a2b09be766d15bd282493bb4389853d4aaaa4bdfb5a1ebd668124bdd450573dd4c8a03da5f78cbca877643b22be4b3d3cd186bc1685733beb3514bb0e986dbccfc19fbd270ea2bd398d123d9135c43d8986d8bc9fab463dcf8061bd93909cbb9852a0bd092fe4bcb14d933d64975c3b9ce63a3dcfd8533d884fd13b
all-MiniLM-L6-v2-int8-1	old-3	\\x75eeaebc2dc0b13d73534abcebc1cfbb19e888bd32f3313d8a19193d3da1aebb78928f3df91e133d2c4b273d8f75b5bc2085abbbbcfb023de49fa13c5ba1debcf24a463d18c623bd56f1e2bbfb39893dab67ab3cfdd29d3c250279bd96a7d3bbf28a0fbc7e8752bd3017823d28937e3bcb3e703deaf7e7bbcbd484bdc798c63d533b58ba6695b3bc5bad893d176dee3cc449fd3b529d46bde82637bd5f44333d7fe110bb0b1b183d3ee25cbdc58f813c1d63ac3c3fd3b5bcc4460c3c4c67a6bdac2996bd72f6db3c038a123dd6484a3a95a52c3db9429ebcc1c53cbd3204f5bc5318edbb018a54bdc879c5bc397731bc87c5043d1f58a63b502948bddc5b0f3d63c58a3de3b43c3da7680b3bd28d6fbd3b0de3bb59f4873df1de25bd378e2dbd15cda5bc39c3743caa7cc03bec70c9bbd4dc9a3c1331b23cfb7a343d8222a8bda6e24cbbef274cbce7395abdb7731abd8fab0d3cc4c851bd1681bb3cde0f943b3779463d3292323ccf5a0f3d92e11dbdaf9f46bceb2e07bd26f14ebc00023d3c3cd4293d1db163bd63480bbd5e099c3dbbd553bd5ec76abb3df244bdcdeacbbcf1b3db3ae5164a3c28b522bccc7139bdd7af0cbc5386763dfd1d43385e29b3bd673a353d62d06abbbdd91bba6c652f3d173b75bc2868903cf55f973c56c1d2bdc6efe2bc94c0c33c7456e2bc7c55c6bc7cb4b2bdcb3fb6bd01ddbf3d906bb889761f7c3c020941bd55522cbdd4c1043d23ec78bc14b05fbdfeb2963d7937d63bf9f2093d54582f3d7445943c2c945abd914f5b3d115983ba4837543d5053703c2b52113c076ba2ba81795f3d6af6703de98845bc90a705bdd926013c41e0be3be7d66ebd51eca4bd977242bdcc6d99bd0c40dabcfc7a0bbc2535d9bb69b5063dbc21e63dab743bba904d043d76bdac3d9716a8bd1a27203dd790b23b15ed323c51eb19bc17e10ebd8d7194bdc8e921bd5473623ddcb4bbbd333aaf3d0d3fc4bdf6b0a2bca784b13ca3de03bc349a8e3ccc1bf53ccce97b3ca2994bbc143571bc7b52373c5018f0bcbe1f6fbd6108343dcbbc1a3c589758bd2fbe36bd3b3c963d5f842bbdbdb5c53ce12630bdec830abd57c8203d331818be719a00bdf59259bd701796bc54f49dbc9acdcb3ce8af663c145a093b41b4b13c3ab1383d6ac8193cd21e143ddf84ddbcba79063db44e123d2003133a797c3abd434d0f3e4597413d35c6353d82bb8d3a9a599bbd217a293c0e3bd3bd5c02803c95c6503eb3f70909f731aa3c97f91a3db732953c6336653c07571fbc9b56213df73055bde01ab2bd0ca04f3df4db1e3d8d802abc90178abdeba514bd85187ebd9147613cf401e2bc990fe4bd0800a6bd9756f1bcb842d93d9ddcd83c714f93bc26d8853c731e73bd48ce8abc6430a13d7735adbc5c659bb9e26d9ebd32a2583d2670433d32bfc93bd7379bbd754acfbce0f2053d61eb95bdac5e813d2559ba3d9e7484bd99748cbb2a46423d3a82133db646863c3c647c3d7b45113b62ce0ebd4598193d9ac3a6bd9986313d1f7b92bcbc4b9abab6c0643d75efbd3d5c60a83dcd68d5bb3947833d129c0abdb0faedbc6d1d023ee86b7e3dc537b93d15b6503d3df98d3d2a52fabd2467a33d24701c3c90640b3df008d3bb64f4d43d4049e4bc2c4585bc0ef947bd1319a4bd9c540cbd3f7fae3d2400ae3d4282fe3c588998bd8fd1ccbb57113cbdc48a143deff4303c6d4fbabb136b8a3a3cb7993ade9847bde30f5dbdb5a6cabd282980bce5032c3d88595a3df97c5f3d09ae1e3d524f52bd9bd1a3bd26358fb25b0a64bc4d7d98b91baceb3c060f6bbd05663b3caa89edbd506ca43d9cd19bbd90dd313d712fa63d06c9c63c91ef9abd22c5edbbc3df96bce5c46fbda7b28ebc7b34e13cf932a83c90add0bd9f742f3da268d2bd90b619bc26bdbebde89b7abc32155e3d7a1a23bd0ffba23d9910f03d5824c6bb60df113de1ad8c3dab69ac3d74a1943da1a6fbbc798abcbd5dd691bc6f98343c4bea85bb97068bbdb95e55bd723b49bd7349f13d1cfe173d81ad3e3dd245233c89097cbcee7a22bd4cbca5bd3aaf87bdd95fc9bd69c1a3bd898fda3c2ac3983d8082a13c5b9572bdbd906d3cbb21843db1f68c3c795dd6bc309800bd677012bd1c11eebc992d643d659198bd
\.
COPY public.registry_state (id, version, questions_version) FROM stdin;
1	3	1
\.
COPY public.retired_versions (kind, id, version) FROM stdin;
\.
COPY public.skills (name, description) FROM stdin;
law	Contracts and statutes
capitals	Capital cities
\.
COPY public.strategies (id, version, enabled, description, router, router_options, pick_kind, pick_k, pick_threshold, aggregator, aggregator_expert, fallback_expert, max_calls, timeout_s) FROM stdin;
auto	1	t		skills	{}	dynamic	3	0.5	fuse	\N	\N	8	120
\.
COPY public.trace_experts (trace_id, expert_id) FROM stdin;
62a120f56aa04f57977f86772da8cac6	facts
3be39801110b4dec8fdffab18a4e968c	facts
\.
COPY public.traces (id, started_at, model, strategy, status, document, request_id) FROM stdin;
62a120f56aa04f57977f86772da8cac6	1795359826.9845026	auto	auto	ok	{"request_id": "9fda5c9445b94d47afe2e6f0d077bd60", "model": "auto", "strategy": "auto", "started_at": 1795359826.9845026, "status": "ok", "decision": {"router": "skills", "selected": ["facts"], "considered": [{"expert_id": "facts", "score": 0.9333333333333332, "selected": true, "why": "capitals 1.00 of 2 measured; overall 0.67 of 3"}], "reason": "The query needs capitals (similarity 0.97); facts is best at that (capitals 1.00 of 2 measured; overall 0.67 of 3).", "skills": [{"skill": "capitals", "similarity": 0.9659202098846436, "weight": 1.0}], "category": null, "fallback": false, "others_fit": true, "calls": [], "detail": {"annotator": "embedding", "scoring": "shrunk", "floor": 0.33, "similarity": 0.9659, "with_context": false, "nearest_questions": [{"id": "old-2", "question": "What is the capital of Peru?", "similarity": 0.9975, "skills": ["capitals"], "category": null}, {"id": "old-1", "question": "What is the capital of Kenya?", "similarity": 0.9142, "skills": ["capitals"], "category": null}, {"id": "old-3", "question": "Is a contract without consideration void?", "similarity": -0.0029, "skills": ["law"], "category": null}], "pick": {"kind": "dynamic", "k": 3, "threshold": 0.5}, "notes": []}}, "calls": [{"expert_id": "facts", "role": "candidate", "status": "ok", "latency_ms": 68.43578400003025, "usage": {"prompt_tokens": 30, "completion_tokens": 5, "details": {}}, "error": null, "text": "Lima"}], "aggregator": "single", "timings": {"route": 6.475842999861925, "experts": 68.63459100009095, "aggregate": 0.0, "total": 75.54434200005744, "overhead": 6.909750999966491, "first_token": 75.53596000002472}, "usage": {"prompt_tokens": 30, "completion_tokens": 5, "details": {}}, "error_code": null, "error_message": null, "stream": false, "session_id": null, "messages": [{"role": "user", "content": "What is the capital of Peru?"}], "answer": "Lima", "id": "62a120f56aa04f57977f86772da8cac6"}	9fda5c9445b94d47afe2e6f0d077bd60
3be39801110b4dec8fdffab18a4e968c	1795359828.7939215	auto	auto	ok	{"request_id": "68fc3181fcdd408ba7f95069114de2c8", "model": "auto", "strategy": "auto", "started_at": 1795359828.7939215, "status": "ok", "decision": {"router": "skills", "selected": ["facts"], "considered": [{"expert_id": "facts", "score": 0.9333333333333332, "selected": true, "why": "capitals 1.00 of 2 measured; overall 0.67 of 3"}], "reason": "The query needs capitals (similarity 0.97); facts is best at that (capitals 1.00 of 2 measured; overall 0.67 of 3).", "skills": [{"skill": "capitals", "similarity": 0.9683433175086975, "weight": 1.0}], "category": null, "fallback": false, "others_fit": true, "calls": [], "detail": {"annotator": "embedding", "scoring": "shrunk", "floor": 0.33, "similarity": 0.9683, "with_context": false, "nearest_questions": [{"id": "old-1", "question": "What is the capital of Kenya?", "similarity": 0.9981, "skills": ["capitals"], "category": null}, {"id": "old-2", "question": "What is the capital of Peru?", "similarity": 0.9184, "skills": ["capitals"], "category": null}, {"id": "old-3", "question": "Is a contract without consideration void?", "similarity": 0.0114, "skills": ["law"], "category": null}], "pick": {"kind": "dynamic", "k": 3, "threshold": 0.5}, "notes": []}}, "calls": [{"expert_id": "facts", "role": "candidate", "status": "ok", "latency_ms": 39.84680100006699, "usage": {"prompt_tokens": 31, "completion_tokens": 8, "details": {}}, "error": null, "text": "Nairobi"}], "aggregator": "single", "timings": {"route": 3.492942000093535, "experts": 40.02050100007182, "aggregate": 0.0, "total": 43.96174199996494, "overhead": 3.9412409998931253, "first_token": 43.958017000022664}, "usage": {"prompt_tokens": 31, "completion_tokens": 8, "details": {}}, "error_code": null, "error_message": null, "stream": false, "session_id": null, "messages": [{"role": "user", "content": "What is the capital of Kenya?"}], "answer": "Nairobi", "id": "3be39801110b4dec8fdffab18a4e968c"}	68fc3181fcdd408ba7f95069114de2c8
\.
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.aggregator_outcomes
    ADD CONSTRAINT pk_aggregator_outcomes PRIMARY KEY (expert_id, question_id);
ALTER TABLE ONLY public.experts
    ADD CONSTRAINT pk_experts PRIMARY KEY (id);
ALTER TABLE ONLY public.labelled_questions
    ADD CONSTRAINT pk_labelled_questions PRIMARY KEY (id);
ALTER TABLE ONLY public.profile_counts
    ADD CONSTRAINT pk_profile_counts PRIMARY KEY (expert_id, skill);
ALTER TABLE ONLY public.profile_outcomes
    ADD CONSTRAINT pk_profile_outcomes PRIMARY KEY (run_id, expert_id, question_id);
ALTER TABLE ONLY public.profile_runs
    ADD CONSTRAINT pk_profile_runs PRIMARY KEY (id);
ALTER TABLE ONLY public.question_vectors
    ADD CONSTRAINT pk_question_vectors PRIMARY KEY (encoder_id, question_id);
ALTER TABLE ONLY public.registry_state
    ADD CONSTRAINT pk_registry_state PRIMARY KEY (id);
ALTER TABLE ONLY public.retired_versions
    ADD CONSTRAINT pk_retired_versions PRIMARY KEY (kind, id);
ALTER TABLE ONLY public.skills
    ADD CONSTRAINT pk_skills PRIMARY KEY (name);
ALTER TABLE ONLY public.strategies
    ADD CONSTRAINT pk_strategies PRIMARY KEY (id);
ALTER TABLE ONLY public.trace_experts
    ADD CONSTRAINT pk_trace_experts PRIMARY KEY (trace_id, expert_id);
ALTER TABLE ONLY public.traces
    ADD CONSTRAINT pk_traces PRIMARY KEY (id);
CREATE INDEX ix_profile_outcomes_expert_id_question_id ON public.profile_outcomes USING btree (expert_id, question_id);
CREATE INDEX ix_question_vectors_question_id ON public.question_vectors USING btree (question_id);
CREATE INDEX ix_trace_experts_expert_id ON public.trace_experts USING btree (expert_id);
CREATE INDEX ix_traces_request_id ON public.traces USING btree (request_id);
CREATE INDEX ix_traces_started_at_id ON public.traces USING btree (started_at, id);
ALTER TABLE ONLY public.profile_outcomes
    ADD CONSTRAINT fk_profile_outcomes_run_id FOREIGN KEY (run_id) REFERENCES public.profile_runs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.question_vectors
    ADD CONSTRAINT fk_question_vectors_question_id FOREIGN KEY (question_id) REFERENCES public.labelled_questions(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.strategies
    ADD CONSTRAINT fk_strategies_aggregator_expert FOREIGN KEY (aggregator_expert) REFERENCES public.experts(id);
ALTER TABLE ONLY public.strategies
    ADD CONSTRAINT fk_strategies_fallback_expert FOREIGN KEY (fallback_expert) REFERENCES public.experts(id);
ALTER TABLE ONLY public.trace_experts
    ADD CONSTRAINT fk_trace_experts_request_id FOREIGN KEY (trace_id) REFERENCES public.traces(id) ON DELETE CASCADE;
