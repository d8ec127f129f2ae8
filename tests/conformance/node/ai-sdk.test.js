// Vercel's AI SDK with its provider for OpenAI-compatible services.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embed, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from 'ai';
import { z } from 'zod';

import { apiKey, baseURL, roman } from './given.js';

const provider = createOpenAICompatible({ name: 'consilium', baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const auto = provider('auto');
const numerals = provider('numerals');
const once = { maxRetries: 0 };
const verdict = z.object({ sure: z.boolean(), kind: z.enum(['roman', 'arabic']) });
const report = tool({
  description: 'Report an answer.',
  inputSchema: z.object({ answer: z.number().int() }),
  execute: async ({ answer }) => `reported ${answer}`,
});

test('generateText', async () => {
  const made = await generateText({ model: auto, prompt: roman, ...once });

  assert.equal(made.text, '1994');
  assert.equal(made.finishReason, 'stop');
  assert.ok(made.usage.totalTokens > 0);
});

test('streamText', async () => {
  const made = streamText({ model: auto, prompt: roman, ...once });
  const pieces = [];
  for await (const piece of made.textStream) pieces.push(piece);

  assert.equal(pieces.join(''), '1994');
  // Tokens that are there together come together, so that four letters may be one piece.
  assert.ok(pieces.every((piece) => piece.length > 0));
  assert.ok((await made.usage).outputTokens > 0);
});

test('generateObject', async () => {
  for (const model of [auto, numerals]) {
    const { object } = await generateObject({ model, schema: verdict, prompt: roman, ...once });
    assert.ok(verdict.safeParse(object).success);
  }
});

test('streamObject', async () => {
  const made = streamObject({ model: numerals, schema: verdict, prompt: roman, ...once });
  for await (const _ of made.partialObjectStream);

  assert.ok(verdict.safeParse(await made.object).success);
});

test('tools are called, run and their results sent back', async () => {
  const made = await generateText({
    model: numerals,
    prompt: roman,
    tools: { report },
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? { type: 'tool', toolName: 'report' } : 'none' }),
    ...once,
  });

  assert.equal(made.steps.length, 2);
  assert.equal(made.steps[0].toolCalls[0].toolName, 'report');
  assert.match(made.steps[0].toolResults[0].output, /^reported -?\d+$/);
});

test('a tool call in a stream', async () => {
  const made = streamText({ model: numerals, prompt: roman, tools: { report }, toolChoice: 'required', ...once });
  for await (const _ of made.fullStream);

  assert.equal((await made.toolCalls)[0].toolName, 'report');
});

test('embed', async () => {
  const { embedding } = await embed({ model: provider.embeddingModel('all-MiniLM-L6-v2'), value: 'seven plus five', ...once });

  assert.equal(embedding.length, 384);
});

test('errors tell the status and what to do', async () => {
  await assert.rejects(
    generateText({ model: provider('numeral'), prompt: roman, ...once }),
    (error) => APICallError.isInstance(error) && error.statusCode === 404 && /did you mean 'numerals'/.test(error.message),
  );
});
