import { seededNumbers } from '../helpers.js';

/** Choices that are always the same for the same seed and index, whatever was chosen for other indexes. */
export class Dice {
  /** A number from 0 up to, not including, the limit. */
  readonly below: (limit: number) => number;

  constructor(seed: number, index: number) {
    this.below = seededNumbers(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index, 0x85ebca6b));
  }

  percent(chance: number): boolean {
    return this.below(100) < chance;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  /** One of them, each as often as its weight says. */
  weighted<T>(from: readonly (readonly [what: T, weight: number])[]): T {
    let left = this.below(from.reduce((sum, [, weight]) => sum + weight, 0));
    for (const [what, weight] of from) {
      if (left < weight) return what;
      left -= weight;
    }
    throw new RangeError('there is nothing to choose from');
  }
}
