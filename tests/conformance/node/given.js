// What the tests for Python hand over.
export const baseURL = process.env.CONSILIUM_BASE_URL;
export const apiKey = process.env.CONSILIUM_KEY;
export const roman = 'Write MCMXCIV in Arabic numerals.';
export const said = (content) => [{ role: 'user', content }];
export const schema = {
  type: 'object',
  properties: { answer: { type: 'string', maxLength: 12 } },
  required: ['answer'],
  additionalProperties: false,
};

if (!baseURL || !apiKey) throw new Error('CONSILIUM_BASE_URL and CONSILIUM_KEY say which service is tried');
