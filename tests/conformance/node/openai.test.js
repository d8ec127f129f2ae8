// OpenAI's own client for Node.js, unchanged.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI, { toFile } from 'openai';

import { apiKey, baseURL, roman, said, schema } from './given.js';

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const tool = { type: 'function', function: { name: 'report', description: 'Report an answer.', parameters: schema, strict: true } };

test('chat', async () => {
  const made = await client.chat.completions.create({ model: 'auto', messages: said(roman) });

  assert.equal(made.choices[0].message.content, '1994');
  assert.equal(made.choices[0].message.refusal, null);
  assert.equal(made.choices[0].finish_reason, 'stop');
  assert.equal(made.usage.total_tokens, made.usage.prompt_tokens + made.usage.completion_tokens);
});

test('a stream, read piece by piece', async () => {
  const stream = await client.chat.completions.create({
    model: 'auto', messages: said(roman), stream: true, stream_options: { include_usage: true },
  });
  let text = '';
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    usage = chunk.usage ?? usage;
  }

  assert.equal(text, '1994');
  assert.ok(usage.completion_tokens > 0);
});

test('a stream, put together by the client', async () => {
  const runner = client.chat.completions.stream({ model: 'auto', messages: said(roman) });

  assert.equal(await runner.finalContent(), '1994');
});

test('a forced tool call, whole and streamed', async () => {
  for (const choice of ['required', { type: 'function', function: { name: 'report' } }]) {
    const asked = { model: 'auto', messages: said(roman), tools: [tool], tool_choice: choice };
    const whole = await client.chat.completions.create(asked);
    const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
    for (const made of [whole, streamed]) {
      const [call] = made.choices[0].message.tool_calls;
      assert.equal(call.function.name, 'report');
      assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['answer']);
    }
  }
});

test('tools that the client runs by itself', async () => {
  const given = [];
  const report = {
    type: 'function',
    function: { ...tool.function, parse: JSON.parse, function: (args) => { given.push(args); return 'reported'; } },
  };
  const runner = client.chat.completions.runTools(
    { model: 'numerals', messages: said(roman), tools: [report], tool_choice: { type: 'function', function: { name: 'report' } } },
  );
  await runner.done();

  assert.equal(typeof given[0].answer, 'string');
});

test('a strict JSON schema', async () => {
  const made = await client.chat.completions.create({
    model: 'numerals',
    messages: said(roman),
    response_format: { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } },
  });

  assert.deepEqual(Object.keys(JSON.parse(made.choices[0].message.content)), ['answer']);
});

test('plain completions', async () => {
  const made = await client.completions.create({ model: 'auto', prompt: roman });

  assert.equal(made.choices[0].text, '1994');
});

test('embeddings', async () => {
  const made = await client.embeddings.create({ model: 'all-MiniLM-L6-v2', input: ['seven plus five', 'five plus seven'] });

  assert.equal(made.data.length, 2);
  assert.equal(made.data[0].embedding.length, 384);
});

test('models', async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);

  assert.ok(names.includes('auto') && names.includes('consilium/panel') && names.includes('numerals'));
  assert.equal((await client.models.retrieve('consilium/panel')).object, 'model');
});

test('files and a batch', async () => {
  const line = { custom_id: '1', method: 'POST', url: '/v1/chat/completions', body: { model: 'auto', messages: said(roman) } };
  const file = await client.files.create({ file: await toFile(Buffer.from(JSON.stringify(line)), 'in.jsonl'), purpose: 'batch' });
  let batch = await client.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' });
  const until = Date.now() + 120_000;
  while (!['completed', 'failed', 'expired', 'cancelled'].includes(batch.status)) {
    assert.ok(Date.now() < until, `the batch is ${batch.status}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
    batch = await client.batches.retrieve(batch.id);
  }
  const output = JSON.parse(await (await client.files.content(batch.output_file_id)).text());

  assert.equal(batch.status, 'completed');
  assert.equal(output.response.body.choices[0].message.content, '1994');
  assert.equal((await client.files.delete(file.id)).deleted, true);
});

test('errors have the types of the client', async () => {
  const ask = (more) => client.chat.completions.create({ model: 'auto', messages: said(roman), ...more });

  await assert.rejects(ask({ model: 'numeral' }), (error) => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found');
  await assert.rejects(ask({ temperature: 7 }), (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature');
  await assert.rejects(client.files.retrieve('file-none'), OpenAI.NotFoundError);
  const stranger = new OpenAI({ baseURL, apiKey: 'nobody', maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  const hasty = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 1 });
  await assert.rejects(
    hasty.chat.completions.create({ model: 'generalist', messages: said(roman), n: 8, ignore_eos: true }), OpenAI.APIConnectionTimeoutError,
  );
});

test('a stream that is left does no harm', async () => {
  const stream = await client.chat.completions.create({ model: 'generalist', messages: said(roman), stream: true, ignore_eos: true });
  for await (const _ of stream) break;

  assert.equal((await client.chat.completions.create({ model: 'auto', messages: said(roman) })).choices[0].message.content, '1994');
});
